//! What went wrong, in the broker's terms: each error names the thing and the way out, and never a credential.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use ponos_core::broker::{BrokerError, BrokerErrorKind};

use crate::options::RabbitOptions;

/// The class of a channel's or a connection's error.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Class {
    /// The server closed the channel over this one operation; other channels go on.
    Channel(AMQPSoftError),
    /// The channel had been closed before.
    NoChannel,
    /// The connection is gone; another one may be had.
    Connection,
}

pub(crate) fn class(error: &lapin::Error) -> Class {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) => match amqp.kind() {
            AMQPErrorKind::Soft(soft) => Class::Channel(soft.clone()),
            AMQPErrorKind::Hard(_) => Class::Connection,
        },
        ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidChannel(_) => Class::NoChannel,
        _ => Class::Connection,
    }
}

/// How `rustls` begins its errors about the server's certificate.
const BAD_CERTIFICATE: &str = "invalid peer certificate: ";

fn cure_of_certificate(problem: &str) -> &'static str {
    if problem.contains("expired") {
        "renew RabbitMQ's certificate, or set this machine's clock"
    } else if problem.contains("for name") {
        "name the host in the broker's URL as its certificate does"
    } else if problem.contains("UnknownIssuer") || problem.contains("CaUsedAsEndEntity") {
        "name the authority that signed it in the broker's URL, `?cacertfile=ca.pem`"
    } else {
        "give RabbitMQ a certificate for its host name, signed by an authority that this machine knows"
    }
}

/// What the server said, or what happened to the connection.
pub(crate) fn text(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) => amqp.get_message().as_str().to_owned(),
        ErrorKind::IOError(io) => format!("the connection broke: {io}"),
        ErrorKind::MissingHeartbeatError => "no heartbeat came from RabbitMQ in time".to_owned(),
        ErrorKind::ParsingError(_) => "what answers there does not speak AMQP".to_owned(),
        ErrorKind::InvalidChannelState(..) => "the channel was closed".to_owned(),
        ErrorKind::InvalidConnectionState(_) => "the connection was closed".to_owned(),
        other => format!("{other:?}"),
    }
}

pub(crate) fn unavailable(problem: impl Into<String>) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Unavailable, problem)
}

/// Whether a queue that is "not found" exists, on a node that is away or has just come back.
pub(crate) fn is_away(said: &str) -> bool {
    said.contains("is down or inaccessible")
}

/// An error of one operation.
pub(crate) fn of_operation(what: &str, error: &lapin::Error) -> BrokerError {
    let said = text(error);
    match class(error) {
        Class::Channel(AMQPSoftError::ACCESSREFUSED) => BrokerError::new(
            BrokerErrorKind::Denied,
            format!(
                "{what} is not allowed ({said}): give this user what `ponos topology permissions` prints for the application"
            ),
        ),
        Class::Channel(AMQPSoftError::NOTFOUND) if is_away(&said) => unavailable(format!("{what}: {said}")),
        Class::Channel(AMQPSoftError::NOTFOUND) => {
            BrokerError::new(BrokerErrorKind::NotFound, format!("{what}: {said}"))
        }
        Class::Channel(AMQPSoftError::PRECONDITIONFAILED) => {
            BrokerError::new(BrokerErrorKind::Mismatch, format!("{what}: {said}"))
        }
        Class::Channel(AMQPSoftError::RESOURCELOCKED) => BrokerError::new(
            BrokerErrorKind::Denied,
            format!("{what}: another connection has it for itself ({said})"),
        ),
        Class::Channel(_) => BrokerError::new(BrokerErrorKind::Invalid, format!("{what}: {said}")),
        Class::NoChannel | Class::Connection => unavailable(format!("{what}: {said}")),
    }
}

/// Why a connection could not be made; whether trying again may help is in its kind.
pub(crate) fn of_connecting(options: &RabbitOptions, node: &str, error: &lapin::Error) -> BrokerError {
    let said = text(error);
    let denied = |problem: String| BrokerError::new(BrokerErrorKind::Denied, problem);
    if let ErrorKind::ProtocolError(amqp) = error.kind() {
        let (user, vhost) = (&options.user, &options.vhost);
        return match amqp.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => denied(format!(
                "RabbitMQ at {node} refused the user `{user}`: check user and password in the broker's URL (`rabbitmqctl authenticate_user {user} …`); `guest` may only connect from RabbitMQ's own host"
            )),
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if said.contains("not found") => BrokerError::new(
                BrokerErrorKind::NotFound,
                format!(
                    "RabbitMQ at {node} has no virtual host `{vhost}`: create it (`rabbitmqctl add_vhost {vhost}`) or name another one after the host in the broker's URL"
                ),
            ),
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => denied(format!(
                "RabbitMQ at {node} does not let the user `{user}` into the virtual host `{vhost}` ({said}): grant permissions (`rabbitmqctl set_permissions -p {vhost} {user} …`; `ponos topology permissions` prints what an application needs)"
            )),
            _ => unavailable(format!("RabbitMQ at {node} did not take the connection: {said}")),
        };
    }
    if let Some((_, problem)) = said.split_once(BAD_CERTIFICATE) {
        // Trying again does not make it better, and who answers there may not be who it says it is.
        let cure = cure_of_certificate(problem);
        return denied(format!(
            "what answers at {node} has a certificate that is not to be trusted ({problem}): {cure}"
        ));
    }
    unavailable(format!(
        "RabbitMQ at {node} cannot be reached ({said}): is it running, and are host, port and {} right?",
        if options.tls { "certificates" } else { "`amqp://` (not `amqps://`)" }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_is_told_from_a_refused_operation() {
        let broken: lapin::Error = std::io::Error::other("reset").into();
        assert_eq!(class(&broken), Class::Connection);
        assert!(of_operation("the queue `x`", &broken).is_temporary());
    }
}
