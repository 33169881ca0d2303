//! The command line itself, without a cluster.

use std::process::{Command, Output};

fn minik8s(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_minik8s")).args(arguments).env("MINIK8S_HOME", home.path()).output().unwrap()
}

#[test]
fn errors_are_one_line_and_exit_code_one() {
    for verb in ["down", "status", "delete", "kubeconfig", "logs"] {
        let output = minik8s(&[verb, "--name", "nobody"]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{verb}: {error}");
        assert_eq!(error, "error: no cluster named \"nobody\"; `minik8s up --name nobody` makes one\n", "{verb}");
    }
}

#[test]
fn help_names_every_verb() {
    let help = String::from_utf8(minik8s(&["--help"]).stdout).unwrap();
    for verb in ["up", "down", "delete", "status", "kubeconfig", "logs", "node", "version"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(verb)), "{verb} is missing:\n{help}");
    }
}
