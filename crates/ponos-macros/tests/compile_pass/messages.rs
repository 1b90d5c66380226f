//! Every form that a message can have, with nothing imported but the prelude, and without a warning.

#![deny(
    warnings,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    non_local_definitions
)]

use ponos::prelude::*;

/// What is inside a message.
#[data]
#[derive(Clone, Debug, PartialEq)]
pub struct OrgId(pub String);

/// Data may be generic, and an enum of any sort.
#[data]
pub enum Either<A, B> {
    /// One.
    Left(A),
    /// The other.
    Right {
        /// Its value.
        value: B,
    },
    /// None.
    Neither,
}

/// An event of another crate, as far as the orphan rules are concerned.
pub mod contracts {
    use ponos::prelude::*;

    /// An event.
    #[event("org.payment.processed")]
    #[derive(Clone, Debug, PartialEq)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub struct OrgPaymentProcessed {
        /// A field of an own type.
        pub org: super::OrgId,
        /// A field with a name of its own on the wire.
        pub amount_cents: u64,
        /// Optional, as everywhere in serde.
        #[serde(default)]
        pub note: Option<String>,
        /// The field's name is Rust's affair, the wire's name is not `tid`.
        #[serde(rename = "deviceTid")]
        pub tid: String,
    }
}

/// The tense is not looked at.
#[event("dock.unresponsive", verb = unchecked)]
pub struct DockUnresponsive;

/// An event with an object for each variant.
#[event("card.changed")]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum CardChanged {
    /// With fields.
    Renewed {
        /// Which may be any data.
        until: Either<u64, String>,
    },
    /// Without.
    Locked,
}

/// What its handlers reach.
pub struct Mailer;

/// An application with everything.
#[app("pheidi", state = Mailer, emits(contracts::OrgPaymentProcessed, DockUnresponsive))]
pub struct Pheidi;

/// Another module.
pub mod billing {
    use ponos::prelude::*;

    /// An application with nothing but a name.
    #[app("billing")]
    #[derive(Debug, Clone, Copy)]
    pub struct Billing;
}

/// A task without data.
#[task("pheidi.email.send", app = Pheidi, emits(contracts::OrgPaymentProcessed, CardChanged,))]
#[derive(Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct EmailSend;

/// The same event may have many sources, and the application stand behind a path.
#[task("billing.card.charged-back", verb = unchecked, app = billing::Billing, emits(CardChanged))]
pub struct CardChargeBack {}

/// A field's type may be the message's own, and a field may be for some builds only.
#[event("comment.posted")]
pub struct CommentPosted {
    /// The comments on it.
    pub answers: Vec<Self>,
    /// Never there.
    #[cfg(any())]
    pub missing: Missing,
    /// With a reading and a description of its own.
    #[serde(with = "seconds")]
    #[schemars(with = "u64")]
    pub age: std::time::Duration,
    /// Not on the wire at all.
    #[serde(skip)]
    pub mailer: Option<Mailer>,
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        duration.as_secs().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

/// A name that a macro could meet with its own.
#[event("message.sent")]
pub struct Message;

fn json<P: ponos::Payload>(payload: &P) -> String {
    serde_json::to_string(payload).unwrap()
}

fn infos(infos: Vec<ponos::EventInfo>) -> Vec<&'static str> {
    infos.iter().map(|info| info.name).collect()
}

fn emitted_by<E: ponos::EmittedBy<By>, By>() {}

fn owned_by<T: ponos::OwnedBy<A>, A>() {}

fn main() {
    // The names, and what is declared, can be read from the types alone.
    assert_eq!(
        <contracts::OrgPaymentProcessed as Event>::NAME,
        "org.payment.processed"
    );
    assert_eq!(<EmailSend as Task>::NAME, "pheidi.email.send");
    assert_eq!(<Pheidi as App>::NAME, "pheidi");
    assert_eq!(
        infos(<Pheidi as App>::emits()),
        ["org.payment.processed", "dock.unresponsive"]
    );
    assert_eq!(
        infos(<EmailSend as Task>::emits()),
        ["org.payment.processed", "card.changed"]
    );
    assert_eq!(infos(<billing::Billing as App>::emits()), [""; 0]);
    assert_eq!(
        <EmailSend as ponos::IntoTasks<Pheidi>>::names(),
        ["pheidi.email.send"]
    );
    emitted_by::<contracts::OrgPaymentProcessed, EmailSend>();
    emitted_by::<contracts::OrgPaymentProcessed, Pheidi>();
    emitted_by::<CardChanged, EmailSend>();
    emitted_by::<CardChanged, CardChargeBack>();
    owned_by::<EmailSend, Pheidi>();
    owned_by::<CardChargeBack, billing::Billing>();
    let (): <billing::Billing as App>::State = ();
    let Mailer: <Pheidi as App>::State = Mailer;

    // Inside of a function everything works as outside, for tests and examples.
    #[app("local")]
    struct Local;
    #[event("local.event.happened")]
    struct LocalEventHappened;
    #[task("local.event.handle", app = Local, emits(LocalEventHappened))]
    struct LocalEventHandle;
    assert_eq!(
        <LocalEventHandle as ponos::IntoTasks<Local>>::names(),
        ["local.event.handle"]
    );
    let _ = (Local, LocalEventHappened, LocalEventHandle);

    // A unit struct is an object to whoever writes, reads or describes it.
    assert_eq!(json(&EmailSend), "{}");
    assert_eq!(json(&Message), "{}");
    let read = serde_json::from_str::<EmailSend>;
    assert_eq!(read("{}").unwrap(), EmailSend);
    assert!(read("null").is_err());
    assert!(
        read(r#"{"unknown":1}"#).is_err(),
        "the user's serde attributes hold"
    );
    let schema = <EmailSend as ponos::Payload>::schema();
    assert_eq!(schema["type"], "object");
    assert_eq!(schema["title"], "EmailSend");
    assert_eq!(schema["description"], "A task without data.");
    assert_eq!(schema["additionalProperties"], false);

    assert_eq!(
        json(&CardChanged::Renewed {
            until: Either::Left(7)
        }),
        r#"{"kind":"renewed","until":{"Left":7}}"#
    );
    assert_eq!(json(&CardChanged::Locked), r#"{"kind":"locked"}"#);
    let _ = (Either::<u8, u8>::Right { value: 1 }, Either::<u8, u8>::Neither);

    let posted = CommentPosted {
        answers: vec![],
        age: std::time::Duration::from_secs(3),
        mailer: None,
    };
    assert_eq!(json(&posted), r#"{"answers":[],"age":3}"#);

    let paid = contracts::OrgPaymentProcessed {
        org: OrgId("acme".to_owned()),
        amount_cents: 100,
        note: None,
        tid: "d-1".to_owned(),
    };
    assert_eq!(
        json(&paid),
        r#"{"org":"acme","amountCents":100,"note":null,"deviceTid":"d-1"}"#
    );
    let read = serde_json::from_str::<contracts::OrgPaymentProcessed>;
    assert_eq!(
        read(r#"{"deviceTid":"d-1","amountCents":100,"org":"acme"}"#).unwrap(),
        paid
    );
    let schema = <contracts::OrgPaymentProcessed as ponos::Payload>::schema();
    assert_eq!(schema["properties"]["amountCents"]["type"], "integer");
}
