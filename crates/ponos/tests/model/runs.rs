//! Many runs drawn from a seed, and the shortest one that fails.

use std::cell::Cell;
use std::time::Duration;

use proptest::arbitrary::any;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::commands::{Command, commands};
use super::driver::{Subject, run};

/// How long what must come may take, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// The same while a failing run is made shorter: most of its parts wait for what never comes.
const SHRINKING: Duration = Duration::from_secs(2);

/// Runs one sequence of commands.
pub fn replay<S: Subject>(subject: &S, commands: &[Command]) -> Result<(), String> {
    replay_within(subject, commands, PATIENCE)
}

fn replay_within<S: Subject>(subject: &S, commands: &[Command], patience: Duration) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(subject, commands, patience))
}

/// Runs so many sequences of up to `most` commands (`PONOS_MODEL_CASES` times as many as in the short form, drawn from
/// `PONOS_MODEL_SEED`), each on a fresh broker, which gets a number for its own chance.
///
/// # Panics
///
/// When one fails, with the shortest run that does, as code for `regressions.rs`.
pub fn check<S: Subject>(name: &str, cases: u32, most: usize, fresh: impl Fn(u16) -> S) {
    let figure =
        |variable| std::env::var(variable).ok().and_then(|figure: String| figure.parse::<u64>().ok());
    let times = figure("PONOS_MODEL_CASES").unwrap_or(1);
    let seed = figure("PONOS_MODEL_SEED").unwrap_or_else(|| fastrand::u64(..));
    let cases = u32::try_from(u64::from(cases) * times).unwrap();
    println!("{name}: {cases} runs of up to {most} commands, PONOS_MODEL_SEED={seed}");
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 100_000,
        max_shrink_time: 180_000,
        ..Config::default()
    };
    let mut random = [0; 32];
    random[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &random));
    let patience = Cell::new(PATIENCE);
    let outcome = runner.run(&(any::<u16>(), commands(most)), |(chance, commands)| {
        replay_within(&fresh(chance), &commands, patience.get()).map_err(|why| {
            if patience.replace(SHRINKING) == PATIENCE {
                println!("{name}: a run of {} commands fails: {why}", commands.len());
            }
            TestCaseError::fail(why)
        })
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, (chance, commands))) => {
            let code = format!("{commands:?}").replace('[', "vec![");
            panic!(
                "{name}, PONOS_MODEL_SEED={seed}: {why}\nthe shortest run that fails, with chance {chance}:\n{code}"
            );
        }
        Err(TestError::Abort(why)) => panic!("{name}: {why}"),
    }
}
