"""The examples in scripts/launch: what they run is what diffjax understands."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from diffjax.cli.commands import group

LAUNCH = Path(__file__).parents[2] / "scripts" / "launch"
EVALUATE = ["evaluate", "pets", "--out", "runs/two words"]
CLASSIFY = ["classify", "cat.jpg", "--labels", "cat,small dog"]


def understood(words):
    """The options of a command line, as click reads them; nothing runs."""
    program, command, *arguments = words
    assert program == "diffjax"
    return group.commands[command].make_context(command, list(arguments)).params


@pytest.fixture
def launch(tmp_path):
    """Runs a script with stand-ins first in PATH; gives the lines they wrote."""
    written = tmp_path / "written"

    def stand_in(name, body):
        path = tmp_path / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)

    def run(script, arguments, stand_ins, **environ):
        for name, body in stand_ins.items():
            stand_in(name, body)
        environ |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "WRITTEN": str(written)}
        done = subprocess.run(
            [LAUNCH / script, *arguments], env=environ, capture_output=True, text=True
        )
        lines = written.read_text().splitlines() if written.exists() else []
        return done, lines

    return run


WRITE = 'printf "%q " "$(basename "$0")" "$@" >> "$WRITTEN"; echo >> "$WRITTEN"'
SLURM = {"srun": WRITE, "scontrol": "echo node007; echo node008"}
JOB = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "node[007-008]"}


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("*.sh")), ids=lambda p: p.name)
def test_scripts_are_bash(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


def test_slurm_evaluates(launch):
    done, [line] = launch("slurm.sh", EVALUATE, SLURM, **JOB)
    assert done.returncode == 0, done.stderr
    (
        srun,
        *options,
    ) = shlex.split(line)
    command = options[options.index("diffjax") :]
    assert (
        srun == "srun" and "--kill-on-bad-exit=0" in options and "--wait=0" in options
    )
    params = understood(command)
    assert params["distributed"] and str(params["out"]) == "runs/two words"


def test_slurm_classifies(launch):
    done, [line] = launch("slurm.sh", CLASSIFY, SLURM, **JOB)
    assert done.returncode == 0, done.stderr
    words = shlex.split(line)
    params = understood(words[words.index("diffjax") :])
    assert params["global_mesh"] and params["labels"] == "cat,small dog"
    assert params["coordinator"] == f"node007:{20000 + 123456 % 20000}"


TPU = {
    # what gcloud would have each host run
    "gcloud": 'for a; do case $a in --command=*) bash -c "${a#--command=}";; '
    '*) printf "%s " "$a" >> "$WRITTEN";; esac; done',
    "curl": 'case "$*" in *agent-worker-number) echo 3;; '
    "*worker-network-endpoints) echo a:1:b,a:1:c,a:1:d,a:1:e;; *) exit 22;; esac",
    "diffjax": 'echo "bounds ${TPU_PROCESS_BOUNDS:-none} '
    '${TPU_CHIPS_PER_PROCESS_BOUNDS:-none}" >> "$WRITTEN"; ' + WRITE,
}


@pytest.mark.parametrize("chips", ["", "2,2,1"])
def test_a_tpu_pod_evaluates(launch, chips):
    environ = {"TPU": "pod", "ZONE": "z", "CHIPS": chips}
    done, lines = launch("tpu_pod.sh", EVALUATE, TPU, **environ)
    assert done.returncode == 0, done.stderr
    first, line = lines
    gcloud, _, bounds = first.partition("bounds ")
    assert gcloud == "compute tpus tpu-vm ssh pod --zone=z --worker=all "
    assert bounds == ("1,1,1 2,2,1" if chips else "none none")
    params = understood(shlex.split(line))
    assert (params["process_index"], params["process_count"]) == (3, 4)
    assert str(params["out"]) == "runs/two words"


def test_a_tpu_pod_classifies(launch):
    done, lines = launch("tpu_pod.sh", CLASSIFY, TPU, TPU="pod", ZONE="z")
    assert done.returncode == 0, done.stderr
    params = understood(shlex.split(lines[-1]))
    assert params["global_mesh"] and params["labels"] == "cat,small dog"


@pytest.mark.parametrize("script", ["slurm.sh", "tpu_pod.sh"])
def test_other_commands_are_refused(launch, script):
    done, lines = launch(script, ["report", "runs/a"], {}, TPU="pod", ZONE="z")
    assert done.returncode == 2 and not lines
    assert "evaluate or classify" in done.stderr


def test_the_jobset():
    jobset = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    assert jobset["kind"] == "JobSet"
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    [replicated] = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    n = job["parallelism"]
    assert job["completionMode"] == "Indexed" and job["completions"] == n
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # as Indexed jobs with own limits need it
    [container] = pod["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert all(isinstance(e["value"], str) for e in container["env"])
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    index = "$(JOB_COMPLETION_INDEX)"  # which Kubernetes puts in
    words = [a.replace(index, str(n - 1)) for a in container["args"]]
    assert words != container["args"]
    params = understood([*container["command"], *words])
    assert (params["process_index"], params["process_count"]) == (n - 1, n)
    assert str(params["out"]).startswith(container["volumeMounts"][0]["mountPath"])
