//! Names: who takes one, gives it back unchanged; who refuses one, says something that is taken; no two queues are one.

use ponos_core::name::{
    AppName, EventName, MAX_APP_BYTES, MAX_NAME_BYTES, MAX_QUEUE_BYTES, NameError, QueueName, TaskName,
    check_app, check_event, check_event_unchecked_verb, check_queue, check_task, check_task_unchecked_verb,
};
use ponos_rabbitmq::topology;

/// Texts with a line break between them: each is tried as every name, neighbours as parts of queues.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let words: Vec<&str> = text.split('\n').take(8).collect();
    for word in &words {
        agree(word, AppName::parse(word).map(|name| name.to_string()), check_app, MAX_APP_BYTES);
        agree(word, EventName::parse(word).map(|name| name.to_string()), check_event, MAX_NAME_BYTES);
        agree(word, TaskName::parse(word).map(|name| name.to_string()), check_task, MAX_NAME_BYTES);
        agree(word, QueueName::parse(word).map(|name| name.to_string()), check_queue, MAX_QUEUE_BYTES);
        let event = EventName::unchecked_verb(word).map(|name| name.to_string());
        agree(word, event, check_event_unchecked_verb, MAX_NAME_BYTES);
        let task = TaskName::unchecked_verb(word).map(|name| name.to_string());
        agree(word, task, check_task_unchecked_verb, MAX_NAME_BYTES);
        read(word);
    }
    queues(&words);
}

fn agree(
    word: &str,
    parsed: Result<String, NameError>,
    check: fn(&str) -> Result<(), NameError>,
    max: usize,
) {
    match (parsed, check(word)) {
        (Ok(name), Ok(())) => {
            assert_eq!(name, word);
            assert!(word.len() <= max);
            assert!(
                word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
            );
            assert!(!word.starts_with("amq.") && !word.starts_with("ponos."));
        }
        (Err(error), Err(same)) => {
            assert_eq!(error, same);
            let message = error.to_string();
            assert!(message.bytes().all(|b| (b' '..=b'~').contains(&b)), "{message:?}");
            assert!(message.len() <= 1024, "{} bytes of error", message.len());
            if let Some(suggestion) = error.suggestion() {
                assert_eq!(check(suggestion), Ok(()), "what is suggested instead of {word:?} is refused too");
            }
        }
        (parsed, checked) => panic!("{word:?}: {parsed:?} and {checked:?}"),
    }
}

/// A name in JSON: taken if it is well-formed, and then given back as it was.
fn read(word: &str) {
    let json = serde_json::to_string(word).expect("a text is JSON");
    let event = serde_json::from_str::<EventName>(&json).ok();
    assert_eq!(
        event.as_ref().map(EventName::as_str),
        EventName::unchecked_verb(word).is_ok().then_some(word)
    );
    let task = serde_json::from_str::<TaskName>(&json).ok();
    assert_eq!(task.as_ref().map(TaskName::as_str), TaskName::unchecked_verb(word).is_ok().then_some(word));
    if let Some(task) = task {
        assert_eq!(serde_json::to_string(&task).expect("a name is JSON"), json);
    }
}

/// Each pair of an application and an event has a queue of its own, which is none of Ponos's and no task's.
fn queues(words: &[&str]) {
    let apps: Vec<_> = words.iter().filter_map(|word| AppName::parse(word).ok()).collect();
    let events: Vec<_> = words.iter().filter_map(|word| EventName::unchecked_verb(word).ok()).collect();
    let tasks: Vec<_> = words.iter().filter_map(|word| TaskName::unchecked_verb(word).ok()).collect();
    let mut all = Vec::new();
    for app in &apps {
        for event in &events {
            let queue = QueueName::subscription(app, event);
            assert_eq!(QueueName::parse(queue.as_str()), Ok(queue.clone()));
            assert_eq!(queue.app(), *app);
            assert!(!topology::is_of_every_app(app, queue.as_str()), "{queue}");
            assert_ne!(event.as_str(), topology::unroutable_name(app), "an exchange for each");
            all.push((queue, (app, event)));
        }
        for own in [QueueName::failed(app), QueueName::discarded(app), QueueName::unroutable(app)] {
            assert!(topology::is_of_every_app(app, own.as_str()));
            assert!(tasks.iter().all(|task| QueueName::task(task) != own));
        }
    }
    for (queue, of) in &all {
        assert!(all.iter().all(|(other, another)| (queue == other) == (of == another)), "{queue}");
    }
    for task in &tasks {
        let queue = QueueName::task(task);
        assert_eq!(queue.app(), task.app());
        assert!(!topology::is_of_every_app(&task.app(), queue.as_str()), "{queue}");
    }
}
