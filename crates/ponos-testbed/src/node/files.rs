//! What is in a node's directory before it starts.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::options::{NodeOptions, SERVER};
use super::{MEMORY, Ports, inside, tls};
use crate::port;

/// What is in a node's directory before it starts.
pub(super) struct Files<'a> {
    pub(super) options: &'a NodeOptions,
    pub(super) directory: &'a Path,
    pub(super) name: &'a str,
    pub(super) ports: &'a Ports,
}

impl Files<'_> {
    pub(super) fn write(&self) {
        let cookie = self
            .options
            .membership
            .as_ref()
            .map_or_else(|| format!("{:016x}", port::random()), |membership| membership.cookie.clone());
        self.file(".erlang.cookie", 0o400, &cookie);
        self.file("rabbitmq.conf", 0o600, &self.configuration());
        let mut plugins = self.options.plugins.clone();
        if self.options.management {
            plugins.push("rabbitmq_management".to_owned());
        }
        self.file("enabled_plugins", 0o600, &format!("[{}].\n", plugins.join(",")));
        if let Some(terms) = &self.options.advanced {
            self.file("advanced.config", 0o600, terms);
        }
        self.file("start", 0o600, &self.start());
        self.file("epmd", 0o600, &format!("{}exec {}epmd\n", self.environment(), self.chroot()));
    }

    fn file(&self, name: &str, mode: u32, text: &str) {
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(self.directory.join(name))
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .unwrap_or_else(|error| panic!("{}: {error}", self.directory.join(name).display()));
    }

    fn inside(&self, name: &str) -> String {
        let path = inside(self.options, self.directory).join(name);
        path.into_os_string().into_string().expect("the temporary directory's name is UTF-8")
    }

    fn configuration(&self) -> String {
        let mut lines: Vec<(String, String)> = Vec::new();
        let mut set = |key: &str, value: String| {
            lines.retain(|(other, _)| other != key);
            lines.push((key.to_owned(), value));
        };
        set("listeners.tcp.1", format!("127.0.0.1:{}", self.ports.amqp));
        set("log.console", "false".to_owned());
        set("log.file.level", "info".to_owned());
        set("disk_free_limit.absolute", "50MB".to_owned());
        set("vm_memory_high_watermark.absolute", MEMORY.to_owned());
        // The figures of the management API are at most a second old.
        set("collect_statistics_interval", "1000".to_owned());
        if let Some(port) = self.ports.management {
            set("management.tcp.ip", "127.0.0.1".to_owned());
            set("management.tcp.port", port.to_string());
        }
        if let Some(port) = self.ports.tls {
            set("listeners.ssl.1", format!("127.0.0.1:{port}"));
            for (key, file) in
                [("cacertfile", tls::AUTHORITY), ("certfile", tls::SERVER), ("keyfile", tls::SERVER_KEY)]
            {
                set(&format!("ssl_options.{key}"), self.inside(file));
            }
            set("ssl_options.verify", "verify_peer".to_owned());
            set("ssl_options.fail_if_no_peer_cert", "false".to_owned());
        }
        for (key, value) in &self.options.config {
            set(key, value.clone());
        }
        lines.iter().fold(String::new(), |text, (key, value)| format!("{text}{key} = {value}\n"))
    }

    /// Becomes the Erlang VM: every step is an `exec`, so that the process id stays the same.
    fn start(&self) -> String {
        // As under systemd the script then replaces itself by the VM instead of waiting for it.
        format!("{}export RUNNING_UNDER_SYSTEMD=true\nexec {}{}\n", self.environment(), self.chroot(), SERVER)
    }

    /// RabbitMQ reads its memory's use from `/proc`. It is mounted in a namespace of the node alone, so that no mount is
    /// left when the node is killed.
    fn chroot(&self) -> String {
        const ENTER: &str = r#"mount -t proc proc "$0/proc" && exec chroot "$0" "$@""#;
        match &self.options.root {
            Some(root) => {
                format!("unshare --mount sh -c {} {} ", shell(ENTER), shell(&root.to_string_lossy()))
            }
            None => String::new(),
        }
    }

    fn environment(&self) -> String {
        let file = |name: &str| self.inside(name);
        let variables = [
            ("HOME", file("")),
            ("ERL_EPMD_PORT", self.ports.epmd.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("ERL_CRASH_DUMP_SECONDS", "0".to_owned()),
            ("RABBITMQ_NODENAME", self.name.to_owned()),
            ("RABBITMQ_DIST_PORT", self.ports.distribution.to_string()),
            // None: the machine's own settings are not meant for this node.
            ("RABBITMQ_CONF_ENV_FILE", file("none")),
            ("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins")),
            ("RABBITMQ_MNESIA_BASE", file("data")),
            ("RABBITMQ_LOG_BASE", file("log")),
            ("RABBITMQ_PID_FILE", file("pid")),
            ("RABBITMQ_PLUGINS_EXPAND_DIR", file("plugins")),
            ("RABBITMQ_GENERATED_CONFIG_DIR", file("generated")),
            // No busy waiting: the machine's cores are for the tests.
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
                    .to_owned(),
            ),
        ];
        variables
            .iter()
            .fold(String::new(), |text, (name, value)| format!("{text}export {name}={}\n", shell(value)))
    }
}

/// A text as one word of the shell.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
