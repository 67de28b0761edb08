//! Why the service does not run, from what systemd says of it.

use std::collections::BTreeMap;
use std::process::Command;

use super::Report;

const UNIT: &str = "eomt-edge.service";
const PROPERTIES: &str = "LoadState,ActiveState,SubState,UnitFileState,Result,ExecMainCode,ExecMainStatus,NRestarts,StatusText";

/// What is to be said of a unit.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Fine(String),
    Problem(String),
}

pub(super) fn service(report: &mut Report) {
    let Some(properties) = ask("systemctl", &["show", UNIT, "--property", PROPERTIES]) else {
        return report.line("service", "no systemd answers here");
    };
    match explain(&parse(&properties)) {
        Finding::Fine(text) => report.line("service", text),
        Finding::Problem(text) => {
            report.problem("service", text);
            let log =
                ask("journalctl", &["--unit", UNIT, "--boot", "--priority", "warning", "--lines", "5", "--output", "cat", "--no-pager"]);
            let lines: Vec<&str> =
                log.iter().flat_map(|log| log.lines()).filter(|line| !line.is_empty() && !line.starts_with("-- ")).collect();
            match lines.is_empty() {
                true => report.line("", format!("its log: journalctl --unit {UNIT} (as root, or in the group systemd-journal)")),
                false => lines.iter().for_each(|line| report.line("", format!("log: {line}"))),
            }
        }
    }
}

/// What a program prints; `None` when it is not there or fails.
fn ask(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn parse(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

/// From `systemctl show`: systemd.exec(5), "process exit codes", and systemd.service(5), "$SERVICE_RESULT".
fn explain(properties: &BTreeMap<&str, &str>) -> Finding {
    let get = |key: &str| properties.get(key).copied().unwrap_or_default();
    let restarts = match get("NRestarts") {
        "" | "0" => String::new(),
        count => format!(" ({count} restarts)"),
    };
    match (get("LoadState"), get("ActiveState"), get("SubState")) {
        ("not-found", ..) => Finding::Fine("not installed".to_owned()),
        ("masked", ..) => Finding::Problem(format!("masked: systemctl unmask {UNIT}")),
        ("loaded", "active" | "reloading", _) => Finding::Fine(format!("active{restarts}: {}", get("StatusText"))),
        ("loaded", "activating", "auto-restart") => Finding::Problem(format!("fails and is tried again{restarts}: {}", reason(get))),
        ("loaded", "activating", _) => Finding::Fine(format!("starting{restarts}")),
        ("loaded", "failed", _) => Finding::Problem(format!("has failed: {}", reason(get))),
        ("loaded", "inactive", _) if get("UnitFileState") == "enabled" => Finding::Fine(format!("stopped: systemctl start {UNIT}")),
        ("loaded", "inactive", _) => Finding::Fine(format!("off: systemctl enable --now {UNIT}")),
        (load, active, sub) => Finding::Problem(format!("its unit is {load}, {active} ({sub})")),
    }
}

fn reason<'a>(get: impl Fn(&str) -> &'a str) -> String {
    let status = get("ExecMainStatus");
    match (get("Result"), status) {
        ("exit-code", "2") => "the configuration is wrong, which is not tried again".to_owned(),
        ("exit-code", "1") => "something that it needs is missing or broken".to_owned(),
        ("exit-code", "200") => "its working directory is missing (200/CHDIR)".to_owned(),
        ("exit-code", "203") => "the program is missing, or is for another processor (203/EXEC)".to_owned(),
        ("exit-code", "216") => "one of its groups is missing (216/GROUP): run systemd-sysusers".to_owned(),
        ("exit-code", "217") => "its user is missing (217/USER): run systemd-sysusers".to_owned(),
        ("exit-code", "226") => "its file system view cannot be set up (226/NAMESPACE): is a path in a drop-in missing?".to_owned(),
        ("exit-code", "228") => "the kernel does not take its system call filter (228/SECCOMP)".to_owned(),
        ("exit-code", "233" | "238" | "239" | "240") => "one of its directories below /run, /var/lib or /etc cannot be made".to_owned(),
        ("exit-code", code) => format!("exit code {code}"),
        ("watchdog", _) => "it hung, and the watchdog ended it".to_owned(),
        ("timeout", _) => "it did not become ready in time: a large model on a slow board takes TimeoutStartSec= in a drop-in".to_owned(),
        ("oom-kill", _) => "the kernel ran out of memory: a smaller model, an int8 file or a smaller input takes less".to_owned(),
        ("signal" | "core-dump", signal) if get("ExecMainCode") == "2" || get("ExecMainCode") == "3" => match signal {
            "4" => "this processor lacks an instruction of the program (SIGILL)".to_owned(),
            "31" => "a system call was refused by the unit's filter (SIGSYS)".to_owned(),
            signal => format!("signal {signal} ended it"),
        },
        ("resources", _) => "systemd itself could not start it: memory, or a file that the unit names".to_owned(),
        (result, _) => result.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_become_sentences() {
        let cases = [
            ("LoadState=not-found\nActiveState=inactive\nSubState=dead", false, "not installed"),
            (
                "LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=3\nStatusText=9.8 frames a second",
                false,
                "(3 restarts): 9.8 frames",
            ),
            ("LoadState=loaded\nActiveState=inactive\nSubState=dead\nUnitFileState=disabled", false, "enable --now"),
            (
                "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainCode=1\nExecMainStatus=2",
                true,
                "configuration",
            ),
            (
                "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainCode=1\nExecMainStatus=217",
                true,
                "systemd-sysusers",
            ),
            ("LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=watchdog\nNRestarts=1", true, "hung"),
            ("LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=signal\nExecMainCode=2\nExecMainStatus=4", true, "SIGILL"),
            ("LoadState=masked\nActiveState=inactive\nSubState=dead", true, "unmask"),
            ("LoadState=bad-setting\nActiveState=inactive\nSubState=dead", true, "bad-setting"),
        ];
        for (text, problem, words) in cases {
            let found = explain(&parse(text));
            let said = match &found {
                Finding::Fine(text) | Finding::Problem(text) => text,
            };
            assert_eq!(matches!(found, Finding::Problem(_)), problem, "{text}: {said}");
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
