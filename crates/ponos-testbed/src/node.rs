//! A private RabbitMQ node.

mod files;
mod options;
mod supervisor;
mod tls;

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use files::Files;
pub(crate) use options::Membership;
pub use options::NodeOptions;
use supervisor::Supervisor;
pub use tls::Tls;

use crate::http::{self, escaped, quoted};
use crate::port;

/// How long a node may take until it answers: 5 s where nothing else runs. One that ends is noticed at once.
pub(crate) const START: Duration = Duration::from_secs(240);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const MEMORY: &str = "1GiB";

/// A RabbitMQ node of this process alone. It ends when it is dropped, and when this process ends.
#[derive(Debug)]
pub struct Node {
    options: NodeOptions,
    /// As this process sees it; the node in a chroot sees it without [`NodeOptions::root`].
    directory: PathBuf,
    name: String,
    ports: Ports,
    tls: Option<Tls>,
    supervisor: Supervisor,
    /// The Erlang VM's process; 0 while the node is down.
    pid: AtomicU32,
}

#[derive(Debug)]
struct Ports {
    amqp: u16,
    distribution: u16,
    epmd: u16,
    management: Option<u16>,
    tls: Option<u16>,
}

impl Node {
    /// Starts a node and waits until it answers AMQP and, if that is on, management.
    ///
    /// # Panics
    ///
    /// With the tail of the node's log when it does not answer within four minutes, and when RabbitMQ is not installed.
    #[must_use]
    pub fn start(options: NodeOptions) -> Self {
        Self::try_start(&options).unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// The node that the tests of one process share: default options, started on first use.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start); every later call panics at once.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Node, String>> = OnceLock::new();
        match SHARED.get_or_init(|| Self::try_start(&NodeOptions::default())) {
            Ok(node) => node,
            Err(reason) => panic!("{reason}"),
        }
    }

    pub(crate) fn try_start(options: &NodeOptions) -> Result<Self, String> {
        if !options.is_installed() {
            let place = options.root.as_deref().unwrap_or(Path::new("/")).display();
            return Err(format!("RabbitMQ is not installed in {place}: apt-get install rabbitmq-server"));
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let node = Self::spawn(options);
            match node.wait_ready() {
                Ok(()) => return Ok(node),
                // Between the choice of a port and its use another process may have taken it.
                Err(reason) if tries < 3 && (reason.contains("in use") || reason.contains("eaddrinuse")) => {}
                Err(reason) => return Err(reason),
            }
        }
    }

    /// Starts the node's processes, without waiting until they answer.
    pub(crate) fn spawn(options: &NodeOptions) -> Self {
        let mut options = options.clone();
        if let Some(root) = &mut options.root {
            *root = root.canonicalize().expect("the other system's directory exists");
        }
        let base = options.root.as_ref().map_or_else(std::env::temp_dir, |root| root.join("tmp"));
        // Removed by the supervisor, because it outlives this process.
        let temporary = tempfile::Builder::new()
            .prefix("ponos-testbed-")
            .tempdir_in(base)
            .expect("a temporary directory");
        let directory = temporary.path().to_owned();
        let (name, epmd) = options.membership.as_ref().map_or_else(
            || (unique_name(), port::free()),
            |membership| (membership.name.clone(), membership.epmd_port),
        );
        let ports = Ports {
            amqp: port::free(),
            distribution: port::free(),
            epmd,
            management: options.management.then(port::free),
            tls: options.tls.then(port::free),
        };
        let tls = options.tls.then(|| Tls::make(&directory));
        let files = Files { options: &options, directory: &directory, name: &name, ports: &ports };
        files.write();
        let brings_epmd = options.membership.as_ref().is_none_or(|membership| membership.brings_epmd);
        let epmd = brings_epmd.then(|| directory.join("epmd"));
        let supervisor = Supervisor::new(&directory, &directory.join("start"), epmd.as_deref());
        let _ = temporary.keep();
        let pid = AtomicU32::new(supervisor.start());
        Self { options, directory, name, ports, tls, supervisor, pid }
    }

    pub(crate) fn wait_ready(&self) -> Result<(), String> {
        let started = Instant::now();
        let mut missing = "AMQP";
        while started.elapsed() < START {
            missing = match self.missing() {
                Some(missing) => missing,
                None => return Ok(()),
            };
            if self.has_ended() {
                return Err(format!("the node ended while it started\n{}", self.log_tail()));
            }
            pause();
        }
        Err(format!("the node does not answer {missing} after {} s\n{}", START.as_secs(), self.log_tail()))
    }

    /// What does not answer yet.
    fn missing(&self) -> Option<&'static str> {
        if !answers_amqp(self.ports.amqp) {
            return Some("AMQP");
        }
        if self.ports.tls.is_some_and(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()) {
            return Some("TLS");
        }
        if self.ports.management.is_some()
            && !matches!(self.try_http("GET", "/api/overview", None), Ok((200, _)))
        {
            return Some("management");
        }
        None
    }

    /// A process that has ended stays as a zombie until the supervisor is told to kill it.
    fn has_ended(&self) -> bool {
        process_state(Path::new(&format!("/proc/{}", self.pid()))).is_none_or(|state| "ZX".contains(state))
    }

    /// The port for AMQP without TLS.
    #[must_use]
    pub fn amqp_port(&self) -> u16 {
        self.ports.amqp
    }

    /// The port of the management API, if it is on.
    #[must_use]
    pub fn management_port(&self) -> Option<u16> {
        self.ports.management
    }

    /// The port for AMQP over TLS, if it is on.
    #[must_use]
    pub fn tls_port(&self) -> Option<u16> {
        self.ports.tls
    }

    /// The files that a client needs for TLS, if it is on.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The node's Erlang name, as in the management API's paths.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id of the Erlang VM; 0 while the node is down.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::SeqCst)
    }

    /// The node's directory: configuration, data, logs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The URL of the virtual host `/`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("/")
    }

    /// The URL of a virtual host, as guest.
    #[must_use]
    pub fn url_of(&self, vhost: &str) -> String {
        self.url_as("guest", "guest", vhost)
    }

    /// The URL of a virtual host, as some user.
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str, vhost: &str) -> String {
        let (user, password, vhost) =
            (escaped(user), escaped(password), escaped(vhost).replace("%2F", "%2f"));
        format!("amqp://{user}:{password}@127.0.0.1:{}/{vhost}", self.ports.amqp)
    }

    /// The same over TLS, for the name `localhost`.
    ///
    /// # Panics
    ///
    /// When the node was started without [`NodeOptions::tls`].
    #[must_use]
    pub fn tls_url_of(&self, vhost: &str) -> String {
        let port = self.ports.tls.expect("the node was started with TLS");
        format!("amqps://guest:guest@localhost:{port}/{}", escaped(vhost).replace("%2F", "%2f"))
    }

    /// Makes a virtual host in which guest may do everything, and returns its URL.
    ///
    /// # Panics
    ///
    /// When the node refuses.
    pub fn fresh_vhost(&self) -> String {
        self.url_of(&self.fresh_vhost_name())
    }

    /// The same; returns its name, which needs no escaping in URLs: letters, digits and `-`.
    ///
    /// # Panics
    ///
    /// When the node refuses.
    pub fn fresh_vhost_name(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("t-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        if self.ports.management.is_some() {
            self.put(&format!("/api/vhosts/{name}"), "{}");
        } else {
            self.must_ctl(&["add_vhost", &name]);
        }
        self.permit(&name, "guest", ".*", ".*", ".*");
        name
    }

    /// Makes a user who may do in one virtual host what the regular expressions say.
    ///
    /// # Panics
    ///
    /// When the node refuses.
    pub fn add_user(
        &self,
        vhost: &str,
        user: &str,
        password: &str,
        configure: &str,
        write: &str,
        read: &str,
    ) {
        if self.ports.management.is_some() {
            let body = format!(r#"{{"password":{},"tags":""}}"#, quoted(password));
            self.put(&format!("/api/users/{}", escaped(user)), &body);
        } else {
            self.must_ctl(&["add_user", user, password]);
        }
        self.permit(vhost, user, configure, write, read);
    }

    /// Sets what a user may do in a virtual host, by regular expressions.
    ///
    /// # Panics
    ///
    /// When the node refuses.
    pub fn permit(&self, vhost: &str, user: &str, configure: &str, write: &str, read: &str) {
        if self.ports.management.is_some() {
            let (configure, write, read) = (quoted(configure), quoted(write), quoted(read));
            let body = format!(r#"{{"configure":{configure},"write":{write},"read":{read}}}"#);
            self.put(&format!("/api/permissions/{}/{}", escaped(vhost), escaped(user)), &body);
        } else {
            self.must_ctl(&["set_permissions", "-p", vhost, user, configure, write, read]);
        }
    }

    /// Writes to the disk what was declared: virtual hosts, users, queues, bindings.
    ///
    /// What was declared less than about two seconds before [`kill`](Self::kill) may be gone after it, also a durable
    /// queue with what was in it: the node's database (Mnesia) buffers its log.
    ///
    /// # Panics
    ///
    /// When the node does not obey.
    pub fn sync_declarations(&self) {
        let answer = self.ctl(&["eval", "mnesia:sync_log()."]);
        assert_eq!(answer.as_deref().map(str::trim), Ok("ok"), "the node's database is on the disk");
    }

    /// Ends the Erlang VM by SIGKILL and waits until it is gone. Does nothing when it is down. What was declared just
    /// before may be lost: [`sync_declarations`](Self::sync_declarations).
    pub fn kill(&self) {
        self.supervisor.kill();
        self.pid.store(0, Ordering::SeqCst);
    }

    /// Ends the Erlang VM as a system does that shuts down (SIGTERM): the node closes its connections and its files, and
    /// says goodbye to its cluster. Does nothing when it is down.
    ///
    /// # Panics
    ///
    /// When it has not ended after a minute.
    pub fn stop(&self) {
        if self.pid() == 0 {
            return;
        }
        self.supervisor.terminate();
        let started = Instant::now();
        while !self.has_ended() {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the node still runs a minute after SIGTERM\n{}",
                self.log_tail()
            );
            pause();
        }
        // Takes the zombie away.
        self.kill();
    }

    /// Starts a node that was killed or stopped, with its data and its ports, and waits until it answers.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub fn start_again(&self) {
        self.spawn_again();
        self.wait_ready().unwrap_or_else(|reason| panic!("{reason}"));
    }

    pub(crate) fn spawn_again(&self) {
        self.pid.store(self.supervisor.start(), Ordering::SeqCst);
    }

    /// [`kill`](Self::kill), then [`start_again`](Self::start_again).
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub fn restart(&self) {
        self.kill();
        self.start_again();
    }

    /// Stops the Erlang VM as it is (SIGSTOP), and waits until all its threads stand: its connections stay open and
    /// nothing answers.
    ///
    /// # Panics
    ///
    /// When the node is down.
    pub fn freeze(&self) {
        assert_ne!(self.pid(), 0, "a node that is down cannot be frozen");
        self.supervisor.freeze();
        let started = Instant::now();
        while !self.stands() {
            assert!(started.elapsed() < Duration::from_secs(10), "the node still runs 10 s after SIGSTOP");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets a frozen node go on.
    ///
    /// # Panics
    ///
    /// When the node is down.
    pub fn thaw(&self) {
        assert_ne!(self.pid(), 0, "a node that is down cannot go on");
        self.supervisor.thaw();
    }

    fn stands(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        threads.map(|thread| process_state(&thread.path())).all(|state| state == Some('T'))
    }

    /// Runs `rabbitmqctl` against this node and returns what it printed. It takes seconds.
    ///
    /// # Errors
    ///
    /// What it printed, when it failed or took more than three minutes.
    pub fn ctl(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "180"]);
        if let Some(root) = &self.options.root {
            command.arg("chroot").arg(root);
        }
        command.args(["/usr/lib/rabbitmq/bin/rabbitmqctl", "--quiet", "-n", &self.name]).args(args);
        command.env_clear().env("PATH", PATH).env("LANG", "C.UTF-8").env("HOME", self.inside());
        command.env("ERL_EPMD_PORT", self.ports.epmd.to_string()).env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_CONF_ENV_FILE", self.inside().join("none"));
        // Port 0: any that is free, where the default is one of eleven for the whole machine.
        command.env("RABBITMQ_CTL_DIST_PORT_MIN", "0").env("RABBITMQ_CTL_DIST_PORT_MAX", "0");
        command.env("RABBITMQ_CTL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
        let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(out)
        } else {
            Err(format!(
                "rabbitmqctl {args:?}: {}\n{out}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ))
        }
    }

    /// Raises or clears the memory alarm, and waits until the management API's check `local-alarms` says so (its pages
    /// of nodes follow within seconds). While it is raised the node reads nothing from connections that publish.
    ///
    /// # Panics
    ///
    /// When the node does not obey.
    pub fn memory_alarm(&self, on: bool) {
        self.must_ctl(&["set_vm_memory_high_watermark", "absolute", if on { "1" } else { MEMORY }]);
        self.wait_alarm(on);
    }

    /// The same with the disk: more must be free than any disk has. The node looks at once when it is told.
    ///
    /// # Panics
    ///
    /// When the node does not obey.
    pub fn disk_alarm(&self, on: bool) {
        self.must_ctl(&["set_disk_free_limit", if on { "1000000GB" } else { "50MB" }]);
        self.wait_alarm(on);
    }

    fn wait_alarm(&self, on: bool) {
        if self.ports.management.is_none() {
            return;
        }
        let wanted = if on { 503 } else { 200 };
        let started = Instant::now();
        loop {
            let (status, answer) = self.http("GET", "/api/health/checks/local-alarms", None);
            if status == wanted {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "no {wanted} after 30 s: {status} {answer}");
            pause();
        }
    }

    /// A request to the management API as guest: status and body. `path` begins with `/api/` and is escaped.
    ///
    /// # Panics
    ///
    /// When management is off or does not answer within 15 s.
    pub fn http(&self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        self.try_http(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The same for a node that may be down.
    ///
    /// # Errors
    ///
    /// When nothing answers within 15 s.
    ///
    /// # Panics
    ///
    /// When management is off.
    pub fn try_http(&self, method: &str, path: &str, body: Option<&str>) -> io::Result<(u16, String)> {
        http::request(self.ports.management.expect("the node has management"), method, path, body)
    }

    /// The last lines of the node's logs and of what it printed.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let logs = std::fs::read_dir(self.directory.join("log")).into_iter().flatten().flatten();
        let files = logs.map(|entry| entry.path()).chain([self.directory.join("server.out")]);
        let mut tail = String::new();
        for file in files {
            let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            if !lines.is_empty() {
                let _ = writeln!(tail, "--- {}", file.display());
                let _ = writeln!(tail, "{}", lines[lines.len().saturating_sub(60)..].join("\n"));
            }
        }
        tail
    }

    fn put(&self, path: &str, body: &str) {
        let (status, answer) = self.http("PUT", path, Some(body));
        assert!((200..300).contains(&status), "PUT {path}: {status} {answer}");
    }

    fn must_ctl(&self, args: &[&str]) {
        self.ctl(args).unwrap_or_else(|reason| panic!("{reason}"));
    }

    fn inside(&self) -> PathBuf {
        inside(&self.options, &self.directory)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Sooner than the supervisor's own end: a frozen node would otherwise look alive to the log's reader.
        self.supervisor.kill();
    }
}

/// A path as the node sees it.
fn inside(options: &NodeOptions, path: &Path) -> PathBuf {
    match &options.root {
        Some(root) => Path::new("/").join(path.strip_prefix(root).expect("it lies in the other system")),
        None => path.to_owned(),
    }
}

/// `localhost` resolves on every machine; the machine's own name may not.
pub(crate) fn unique_name() -> String {
    format!("rabbit-{}-{:x}@localhost", std::process::id(), port::random())
}

/// Between two looks at a process outside.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(25));
}

/// The state's letter of a process or a thread, by its directory in `/proc`.
fn process_state(directory: &Path) -> Option<char> {
    let stat = std::fs::read_to_string(directory.join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn answers_amqp(port: u16) -> bool {
    let answer = || -> io::Result<u8> {
        let wait = Duration::from_secs(5);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, wait)?;
        stream.set_read_timeout(Some(wait))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut start = [0];
        stream.read_exact(&mut start)?;
        Ok(start[0])
    };
    // A method's frame: connection.start. A refusal begins with `A`.
    matches!(answer(), Ok(1))
}
