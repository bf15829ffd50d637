"""How a command ends: its status, one line on what went wrong, nothing lost with a reader that has
gone; and whose folder is whose."""

import concurrent.futures
import csv
import io
import logging
import os
import re
import signal
import subprocess
import sys
import tokenize
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from prnet.__main__ import VERBS
from prnet.command import console
from prnet.command.choices import experiments, options, register
from prnet.command.task import _give_back, unclaimed
from prnet.entry import CONFIG_DIR, one_line_errors
from tests.commands import run_commands

ROOT = Path(__file__).resolve().parents[2]
WAITING = """
import time
from prnet.command.running import run_verb

def main(cfg):
    print("ready", flush=True)
    {what}

import prnet.tables
prnet.tables.main = main
run_verb("tables")
"""


def started(what: str, **options) -> subprocess.Popen:
    """A verb that does `what`, where it does it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = [sys.executable, "-c", WAITING.format(what=what)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(script, env=environment, **pipes, **options)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_ends_a_command_with_its_own_status(number, status, name, tmp_path):
    process = started("time.sleep(60)", cwd=tmp_path)
    process.send_signal(number)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"stopped by {name}" in said
    assert "Traceback" not in said + complained


def test_ctrl_c_is_heard_while_hydra_is_imported(tmp_path):
    (tmp_path / "hydra.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "prnet.tables"]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, **pipes)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=60)
    assert (process.returncode, said, complained) == (130, "", "stopped by Ctrl-C\n")


def test_every_verb_is_such_a_command():
    for verb in VERBS:
        module = ROOT / "prnet" / verb
        file = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
        assert f'run_verb("{verb}")' in file.read_text()


@pytest.mark.parametrize("arguments", [[], ["hydra.mode=MULTIRUN"]])
def test_a_mode_that_is_asked_for_is_the_runs(arguments, tmp_path):
    command = [sys.executable, "-m", "prnet.tables", *arguments]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "sadrnet" in ran.stdout.lower()
    assert (tmp_path / "multirun").is_dir() == bool(arguments)


def test_a_reader_that_has_gone_hears_no_more_and_the_work_is_done(tmp_path):
    what = "import logging; [logging.warning('x' * 9999) for _ in range(99)]; open('done', 'w')"
    process = started(what, cwd=tmp_path)
    process.stdout.close()
    with process.stderr:
        complained = process.stderr.read()
    assert process.wait(60) == 0
    assert (tmp_path / "done").exists()
    assert "Traceback" not in complained
    assert "Error" not in complained


def test_bars_go_on_for_a_reader_that_has_gone(monkeypatch):
    """`2>&1 | head`: drawing a bar is no reason to end a training."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stderr", open(writer, "w"))
    console.speak()
    assert sum(1 for _ in tqdm(range(99), mininterval=0)) == 99
    sys.stderr.close()


def test_a_run_that_was_refused_leaves_no_folder(tmp_path, monkeypatch):
    """One that has written something keeps it."""
    monkeypatch.chdir(tmp_path)
    for written, kept in (((), False), (("best.pt",), True), (("report/a.json",), True)):
        monkeypatch.setattr("prnet.command.task._claimed", {})
        folder = Path(unclaimed("outputs/eval/12-00-00"))
        for name in ("eval.log", ".hydra/config.yaml", *written):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
        _give_back()
        assert folder.exists() == kept
        assert Path("outputs").exists() == kept


@pytest.mark.parametrize("verb", VERBS)
def test_help_lists_each_option_with_what_it_is(verb):
    """All that the configuration has and the verb uses, as YAML that says the same."""
    text = Path(CONFIG_DIR, f"{verb}.yaml").read_text()
    (unused,) = re.findall(r"\n +\$\{options:(.*)\}\n", text)
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose(verb, return_hydra_config=True)
    printed = options(*filter(None, unused.split(",")), _root_=cfg).replace("$$", "$")
    expected = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    for key in ["hydra", *filter(None, unused.split(","))]:
        parent = OmegaConf.select(expected, key.rpartition(".")[0]) if "." in key else expected
        parent.pop(key.rpartition(".")[2], None)
    listed = OmegaConf.create(printed)
    assert without_targets(listed) == without_targets(expected)
    explained = [line for line in printed.splitlines() if "  # " in line]
    assert len(explained) >= 0.5 * len(printed.splitlines())


def without_targets(cfg: DictConfig) -> dict:
    """As plain values, without what Hydra constructs."""

    def cleaned(value: object) -> object:
        if isinstance(value, dict):
            return {key: cleaned(inner) for key, inner in value.items() if key != "_target_"}
        return value

    return cleaned(OmegaConf.to_container(cfg, resolve=False))


def test_the_help_of_eval_says_what_eval_reads():
    register()
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("eval", ["protocol=3ddfa"], return_hydra_config=True)
    text = cfg.hydra.help.template
    assert "samples_per_epoch" not in text
    assert "  held_out: 512  # samples of another seed" in text
    assert "  seed: 0\n" in text  # another set's seed is explained there alone
    assert "it measures no depth" in text
    assert "data_dir: data  # where the archives lie" in text


def test_refused_arguments_have_the_status_of_an_error(tmp_path):
    said = run_commands(
        ["prnet.tables", "--bogus"],
        ["prnet.tables", "bogus=1"],
        ["prnet", "bogus"],
        ["prnet.tables", "--help"],
        cwd=tmp_path,
    )
    assert "\npaper: null  # prn | sadrnet" in said.pop()
    starts = ("error: unrecognized arguments: --bogus\n", "error: bogus: unknown", "prnet: no verb")
    for text, start in zip(said, starts, strict=True):
        assert text.startswith(start)
        assert text.endswith("exit 1")


def deep() -> None:
    deep()


def unwritable() -> None:
    with open("/dev/full", "w", buffering=1) as file:
        file.write("text\n")


def killed() -> None:
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        pool.submit(os._exit, 1).result()


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        (lambda: {}["depth"], "unexpected KeyError: 'depth'"),
        (lambda: len(3), "unexpected TypeError: object of type 'int' has no len()"),
        (deep, "unexpected RecursionError: maximum recursion depth exceeded"),
        (lambda: next(csv.reader(io.StringIO("a" * 200_000))), "unexpected Error: field larger"),
        (lambda: cv2.resize(np.zeros((0, 0), np.uint8), (2, 2)), "unexpected error: OpenCV"),
        (lambda: [*tokenize.generate_tokens(io.StringIO("(").readline)], "unexpected TokenError:"),
        (unwritable, "[Errno 28] No space left on device"),
        (lambda: np.zeros(10**15), "Unable to allocate"),
        (lambda: torch.zeros(2) @ torch.zeros(3), "unexpected RuntimeError: "),
    ],
)
def test_an_error_of_any_kind_ends_in_one_line(fail, said, caplog, monkeypatch):
    """What no user can mend names its place; the environment shows the whole traceback."""
    main = one_line_errors(lambda _cfg: fail())
    with pytest.raises(SystemExit) as ended:
        main(None)
    assert ended.value.code == 1
    (line,) = caplog.messages
    assert line.startswith(said)
    assert "\n" not in line
    if said.startswith("unexpected"):
        assert f"({__file__}:" in line or ".py:" in line
        assert "HYDRA_FULL_ERROR=1" in line
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="."):
        main(None)


def test_a_killed_process_is_told_with_what_to_do(caplog):
    with pytest.raises(SystemExit):
        one_line_errors(lambda _cfg: raise_it(BrokenProcessPool(BROKEN)))(None)
    assert "workers=N" in caplog.text


BROKEN = (
    "A process in the process pool was terminated abruptly while the future was running or pending."
)


def raise_it(error: BaseException) -> None:
    raise error


def test_ctrl_c_is_130(caplog):
    with pytest.raises(SystemExit) as ended:
        one_line_errors(lambda _cfg: raise_it(KeyboardInterrupt()))(None)
    assert ended.value.code == 130
    assert caplog.messages == ["stopped by Ctrl-C"]


def test_runs_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("prnet.command.task._claimed", {})
    wanted = str(tmp_path / "outputs" / "prn" / "12-00-00")
    first = unclaimed(wanted)
    assert unclaimed(wanted) == first == wanted  # of one run it is one folder
    found = [first]
    for _ in range(2):  # as other processes do
        monkeypatch.setattr("prnet.command.task._claimed", {})
        found.append(unclaimed(wanted))
    assert [Path(path).name for path in found] == ["12-00-00", "12-00-00_2", "12-00-00_3"]
    assert all(Path(path).is_dir() for path in found)


def test_both_verbs_that_make_runs_claim_their_folder():
    for verb in ("train", "eval"):
        assert "dir: ${unclaimed:'outputs/" in Path(CONFIG_DIR, f"{verb}.yaml").read_text()


def test_lines_do_not_tear_a_bar(monkeypatch):
    """A line stands above the bar, which is wiped before and drawn again after it."""
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    handler = logging.StreamHandler(terminal)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    console.speak()
    with tqdm(total=3, file=terminal, ncols=40) as bar:
        bar.update()
        logging.getLogger("prnet").warning("saved")
    lines = terminal.getvalue().replace("\r", "\n").split("\n")
    assert "saved" in lines


def test_help_lists_what_the_verb_uses():
    """Without the groups of other verbs, and the experiments a line each."""
    texts = {path.stem: path.read_text() for path in Path(CONFIG_DIR).glob("*.yaml")}
    assert not [verb for verb, text in texts.items() if "APP_CONFIG_GROUPS" in text]
    assert [verb for verb, text in texts.items() if "${experiments:}" in text] == ["train"]
    lines = experiments().splitlines()
    names = sorted(path.stem for path in Path(CONFIG_DIR, "experiment").glob("*.yaml"))
    assert [line.split()[0] for line in lines] == [f"+experiment={name}" for name in names]
    assert max(map(len, lines)) < 160
    assert all(len(line.split()) > 2 for line in lines)
