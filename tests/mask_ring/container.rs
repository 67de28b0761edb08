//! A reader in a container: it sees the socket's directory, bound into a mount namespace of its own, and finds the daemon's next socket
//! there, too. Binding the socket itself does not do: the name is another one after a restart.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::support::{PATIENCE, Scratch, python, writer};

/// For each line of its stdin, whether the directory and the file that were bound lead to a daemon that publishes.
const READER: &str = "\
import sys, eomt_edge_client
def follows(path):
    try:
        with eomt_edge_client.Subscriber(path, timeout=60) as masks:
            return next(masks).checksum_ok
    except eomt_edge_client.ConnectError as error:
        return error
for line in sys.stdin:
    print(follows(sys.argv[1]), '|', follows(sys.argv[2]), flush=True)
";

/// `unshare` with a mount namespace: root's, or a user's own.
fn in_a_namespace() -> Command {
    let options = [["-m", "--propagation=private"].as_slice(), &["-r", "-m", "--propagation=private"]];
    let works = |options: &&[&str]| Command::new("unshare").args(*options).arg("true").output().is_ok_and(|output| output.status.success());
    let Some(options) = options.into_iter().find(works) else {
        panic!(
            "this test needs a mount namespace: root's (unshare -m), or a user's own (unshare -rm, sysctl kernel.unprivileged_userns_clone=1)"
        );
    };
    let mut command = Command::new("unshare");
    command.args(options);
    command
}

#[test]
fn a_bound_directory_leads_to_every_daemon_and_a_bound_socket_to_the_first() {
    let scratch = Scratch::new();
    let (host, inside) = (scratch.join("host"), scratch.join("inside"));
    for directory in [&host, &inside] {
        std::fs::create_dir(directory).expect("a directory");
    }
    std::fs::write(scratch.join("bound.sock"), "").expect("something to bind over");
    let socket = host.join("masks.sock");
    let mut daemon = writer(&socket, &["--fps", "100"]);

    let mut command = in_a_namespace();
    let mounts = "mount --bind \"$1\" \"$2\" && mount --bind \"$1/masks.sock\" \"$3\" && shift 3 && exec \"$@\"";
    command.args(["sh", "-c", mounts, "sh"]).args([&host, &inside, &scratch.join("bound.sock")]);
    let py = python();
    command.arg(py.get_program()).envs(py.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["-c", READER]).args([inside.join("masks.sock"), scratch.join("bound.sock")]);
    let mut reader = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a reader");
    let mut orders = reader.stdin.take().expect("piped");
    let mut answers = BufReader::new(reader.stdout.take().expect("piped")).lines();
    let mut ask = || {
        writeln!(orders, "read").expect("a live reader");
        answers.next().expect("an answer").expect("UTF-8")
    };

    assert_eq!(ask(), "True | True");
    assert!(!inside.join("masks.sock").exists(), "bound for the reader alone");
    daemon.signal(Signal::TERM);
    daemon.end(PATIENCE);
    let _daemon = writer(&socket, &["--fps", "100"]);
    let answer = ask();
    assert!(answer.starts_with("True | cannot connect") && answer.ends_with("Connection refused"), "{answer}");
    drop(orders);
    assert!(reader.wait().expect("its end").success());
}
