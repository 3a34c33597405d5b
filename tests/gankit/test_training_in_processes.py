"""Training on two processes against one: the same parameters, a killed worker, another number of processes.

`torchrun` starts this file itself, twice; each process does one of the tasks at the end, and the tests compare.
"""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import gankit as gk
from gankit import commands, processes
from gankit.commands import train
from gankit.game.penalties import R1, WganGP
from gankit.models.blocks import BatchNorm2d
from gankit.training import checkpoints

STEPS = 5
DIGITS = gk.data.load("digits", n=300)


def plain_sngan() -> tuple[nn.Module, nn.Module]:
    """SNGAN without batch normalisation."""
    G, D = gk.models.sngan(DIGITS.shape, z_dim=8, width=8)
    for module in list(G.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return G, D


def sngan() -> tuple[nn.Module, nn.Module]:
    return gk.models.sngan(DIGITS.shape, z_dim=8, width=8)


def biggan() -> tuple[nn.Module, nn.Module]:
    return gk.models.biggan(DIGITS.shape, 10, z_dim=6, width=2)


NORMS = ("channels outermost", "channels innermost", "without gain")
CASES = {
    "hinge": (plain_sngan, {"loss": "hinge", "leak": gk.Leak(0.5)}),
    "mm-nsat": (plain_sngan, {"loss": "mm-nsat", "leak": gk.Leak(0.5)}),
    "mm-unit": (plain_sngan, {"loss": "mm-unit"}),
    "batch norm": (sngan, {"loss": "mm-nsat", "leak": gk.Leak(0.5), "n_dis": 2}),
    "classes": (biggan, {"loss": "hinge", "leak": gk.Leak(0.25, source="async-noise"), "accumulate": 2}),
    "penalties": (
        lambda: gk.models.wgan_gp(DIGITS.shape, z_dim=8, width=8),
        {"loss": "wgan", "d_terms": (WganGP(), R1(1.0))},
    ),
}


def run_of(case: str, **settings) -> gk.Trainer:
    """SGD, because Adam makes a step out of a rounding error where a gradient should be zero."""
    make, given = CASES[case]
    common = {"batch_size": 16, "device": "cpu", "g_optimizer": gk.SGD(0.05), "d_optimizer": gk.SGD(0.05)}
    G, D = make()
    return gk.Trainer(G, D, DIGITS, **common | given | settings)


def trained(case: str, **settings) -> dict[str, object]:
    run = run_of(case, **settings).fit(STEPS, log_every=1, progress=False)
    nets = {"G": run.G, "D": run.D, "teacher": run.teacher.net}
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
    return {"rows": rows, **{name: net.state_dict() for name, net in nets.items()}}


def torchrun(task: str, out: Path, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *flags]
    return subprocess.run(
        [*command, __file__, task, str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


# --- Two processes train as one ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict]:
    """What each of two processes got."""
    out = tmp_path_factory.mktemp("two")
    done = torchrun("compare", out)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", list(CASES))
def test_two_processes_train_as_one(two, case):
    alone = trained(case)
    start = {name: net.state_dict() for name, net in zip("GD", CASES[case][0](), strict=True)}
    for net in ("G", "D", "teacher"):
        moved = 0.0
        for key, value in alone[net].items():
            torch.testing.assert_close(
                two[0][case][net][key], value, rtol=1e-5, atol=1e-5, msg=f"{net} {key}"
            )
            assert torch.equal(two[0][case][net][key], two[1][case][net][key]), "both have the same bits"
            moved = max(moved, float((value - start.get(net, start["G"])[key]).abs().max()))
        assert moved > 1e-4, "equal parameters say nothing if nothing moved"
    assert two[0][case]["rows"] == two[1][case]["rows"]
    for ours, theirs in zip(two[0][case]["rows"], alone["rows"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


def test_the_processes_have_different_parts_of_the_minibatch(two):
    run = run_of("hinge")
    z, x = run.draw_latents()[0], run.draw_data()[0]
    for rank in range(2):
        assert torch.equal(two[rank]["z"], z[rank::2])
        assert torch.equal(two[rank]["x"], x[rank::2])


def watched(out: Path) -> gk.Trainer:
    G, D = gk.models.mlp(DIGITS.shape, z_dim=8, depth=3, width=16)
    run = gk.Trainer(G, D, DIGITS, batch_size=16, device="cpu")
    watch = gk.metrics.watch(DIGITS, ["fd"], n=60)
    return run.fit(
        4, out=out, callback=watch, callback_every=1, save_every=1, best="FD[pixels]", progress=False
    )


def test_metrics_are_shared_out_and_one_process_writes_the_files(two, tmp_path):
    together, folder = two[0]["watched"], Path(two[0]["folder"])
    alone = watched(tmp_path)
    name = "FD[pixels]"
    assert together == two[1]["watched"] == pytest.approx(alone.curve(name)[1].tolist(), rel=1e-4)
    best = checkpoints.read(folder / checkpoints.BEST)
    assert best["step"] == 1 + together.index(min(together))
    assert [row[name] for row in log_of(folder)] == together
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", "best.pt", "checkpoint-00000003.pt", "checkpoint-00000004.pt", "log.jsonl",
    ]  # fmt: skip


def test_without_joint_statistics_the_runs_would_differ(two):
    """The comparison above sees what it is for: means over processes, in the cost and in batch norm."""
    alone = {case: trained(case) for case in ("mm-nsat", "batch norm")}
    for case, key in (("mm-nsat", "apart mm-nsat"), ("batch norm", "apart batch norm")):
        differences = [
            float((two[0][key]["G"][name] - value).abs().max())
            for name, value in alone[case]["G"].items()
            if value.is_floating_point()
        ]
        assert max(differences) > 1e-4


@pytest.mark.parametrize("name", NORMS)
def test_batch_norm_over_processes_is_that_of_the_whole(two, name):
    """Values, gradients and running statistics against PyTorch's layer on the whole batch."""
    x, layer = whole_batch(name)
    y = layer(x)
    gradients = torch.autograd.grad((y * x.detach().cos()).sum(), [x, *layer.parameters()])
    got = [process[f"norm {name}"] for process in two]
    for rank in range(2):
        torch.testing.assert_close(got[rank]["y"], y[rank::2])
        torch.testing.assert_close(got[rank]["x_grad"], gradients[0][rank::2])
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(got[rank][key], getattr(layer, key))
    for i in range(len(gradients) - 1):
        torch.testing.assert_close(got[0]["grads"][i] + got[1]["grads"][i], gradients[1 + i])


def whole_batch(name: str) -> tuple[torch.Tensor, nn.BatchNorm2d]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, 4, 5, generator=generator, dtype=torch.float64) * 2 + 7
    x[::2] += 3  # the processes' parts have different means
    layer = nn.BatchNorm2d(3, affine=name != "without gain").double()
    if layer.affine:
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
            layer.bias.copy_(torch.tensor([1.0, 0.0, 3.0]))
    if name == "channels innermost":
        x = x.contiguous(memory_format=torch.channels_last)
    return x.requires_grad_(), layer


# --- What cannot work together is refused -----------------------------------------------------------------------


def test_processes_that_disagree_are_told_so(two):
    for got in two:
        assert "the seed is (0,) in process 0 and (1,) in process 1" in got["refused"]["seed"]
        assert "the step is 0 in process 0 and 1 in process 1" in got["refused"]["step"]
        assert "the weights' checksum is" in got["refused"]["weights"]
        assert "the data's checksum is" in got["refused"]["pictures"]
        assert "batch_size must be a multiple of the 2 processes, got 15" in got["refused"]["batch"]
        assert "an Ensemble trains in one process, and there are 2" in got["refused"]["ensemble"]
        assert (
            "the newest checkpoint is checkpoint-00000007.pt in process 0 and none in process 1. Give all machines "
            "an --out that they share, or copy the " in got["refused"]["checkpoint"]
        )


# --- Killed, and resumed ----------------------------------------------------------------------------------------


ARGUMENTS = [
    "train",
    "ns-digits",
    "--width",
    "16",
    "--batch-size",
    "8",
    "--save-every",
    "5",
    "--log-every",
    "1",
]
FLAGS = ["--device", "cpu", "--quiet"]


def command(out: Path, steps: int) -> list[str]:
    return [*ARGUMENTS, *FLAGS, "--steps", str(steps), "--out", str(out)]


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_killed_worker_is_restarted_and_the_run_goes_on_in_one_process(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    done = torchrun("kill", killed, "--max-restarts", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "going on from step 5" in done.stdout
    assert done.stdout.count("step 12, checkpoint-00000012.pt") == 1, "one process reports"
    assert (killed / "was_killed").exists()
    rows = log_of(killed)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert all(torch.tensor([row["d_loss"], row["g_loss"]]).isfinite().all() for row in rows)

    assert commands.main(command(whole, 12)) == 0
    assert commands.main(command(killed, 15)) == 0, "started on two processes, resumed on one"
    assert commands.main(command(whole, 15)) == 0
    two_then_one, one = (checkpoints.read(checkpoints.latest(out)) for out in (killed, whole))
    assert two_then_one["step"] == one["step"] == 15
    for ours, theirs in zip(two_then_one["streams"]["states"], one["streams"]["states"], strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(log_of(killed), log_of(whole), strict=True):
        assert ours["g_loss"] == pytest.approx(theirs["g_loss"], rel=1e-3)


# --- Two nodes, which are two agents of torchrun on this machine -------------------------------------------------


def nodes(task: str, folders: list[Path], *flags: str) -> tuple[list[int], str]:
    """The exit codes of two agents with one process each, and all that they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    agent += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
    settings = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    agents, codes, deadline = [], [], time.monotonic() + 240
    with contextlib.ExitStack() as stack:
        said = [stack.enter_context((folder / f"node{i}.txt").open("w+")) for i, folder in enumerate(folders)]
        try:
            for folder, file in zip(folders, said, strict=True):
                process = subprocess.Popen(
                    [*agent, *flags, __file__, task, str(folder)],
                    env=os.environ | settings,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
                agents.append(process)
            codes = [process.wait(max(1, deadline - time.monotonic())) for process in agents]
        except subprocess.TimeoutExpired:
            said[0].write("\nnot done in time")
        finally:
            for process in agents:
                process.terminate()  # which ends its processes before itself
            for process in agents:
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            texts = [file.seek(0) or file.read()[-6000:] for file in said]
    return codes, "\n".join(f"--- node {i} ---\n{text}" for i, text in enumerate(texts))


@pytest.mark.full
def test_two_nodes_train_as_one_process(tmp_path):
    codes, said = nodes("train_on_nodes", [tmp_path] * 2)
    assert codes == [0, 0], said
    got = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert {process["node"] for process in got} == {"0 of 2", "1 of 2"}
    alone = trained("hinge")
    for net in ("G", "D", "teacher"):
        for key, value in alone[net].items():
            torch.testing.assert_close(got[0][net][key], value, rtol=1e-5, atol=1e-5, msg=f"{net} {key}")
            assert torch.equal(got[0][net][key], got[1][net][key]), "both have the same bits"


@pytest.mark.full
def test_a_killed_worker_of_one_node_restarts_both(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    codes, said = nodes("kill", [killed] * 2, "--max-restarts", "2")
    assert codes == [0, 0], said
    assert (killed / "was_killed").exists(), said
    assert "going on from step 5" in said
    assert said.count("step 12, checkpoint-00000012.pt") == 1, said
    assert [row["step"] for row in log_of(killed)] == list(range(1, 13))
    assert commands.main(command(whole, 12)) == 0
    for ours, theirs in zip(log_of(killed), log_of(whole), strict=True):
        assert ours["g_loss"] == pytest.approx(theirs["g_loss"], rel=1e-3)


@pytest.mark.full
def test_nodes_that_share_no_disk_are_told_so(tmp_path):
    """The run is done on one node, which would say so and leave; the other has no checkpoint, and would wait for it."""
    folders = [tmp_path / "a", tmp_path / "b"]
    assert commands.main(command(folders[0], 5)) == 0
    folders[1].mkdir()
    codes, said = nodes("go_on", folders)
    assert len(codes) == 2, said
    assert 0 not in codes, said
    # Either node may have process 0, and the first to give up may end the other before that says so, too.
    found = re.findall(
        r"newest checkpoint is (\S+) in process 0 and (\S+) in process 1\. Give all machines an", said
    )
    assert found, said
    assert set(found[0]) == {"checkpoint-00000005.pt", "none"}
    assert [path.name for path in folders[1].iterdir()] == ["node1.txt"]


# --- What the processes do --------------------------------------------------------------------------------------


def compare(out: Path) -> None:
    with processes.joined():
        rank = processes.rank()
        got: dict[str, object] = {case: trained(case) for case in CASES}
        run = run_of("hinge")
        got["z"], got["x"] = run.draw_latents()[0], run.draw_data()[0]

        joint, processes.mean = processes.mean, lambda x: x.detach()
        got["apart mm-nsat"] = trained_with_joint_gradient("mm-nsat", joint)
        processes.mean = joint
        stack, processes.stack = processes.stack, lambda x: x[None]
        got["apart batch norm"] = trained("batch norm")
        processes.stack = stack

        for name in NORMS:
            x, layer = whole_batch(name)
            mine = x.detach()[rank::2].requires_grad_()
            ours = BatchNorm2d(3, affine=layer.affine).double()
            ours.load_state_dict(layer.state_dict())
            y = ours(mine)
            x_grad, *grads = torch.autograd.grad((y * mine.detach().cos()).sum(), [mine, *ours.parameters()])
            got[f"norm {name}"] = {"y": y.detach(), "x_grad": x_grad, "grads": grads, **ours.state_dict()}
        got["folder"] = str(out / "watched")
        got["watched"] = watched(out / "watched").curve("FD[pixels]")[1].tolist()
        if rank == 0:
            checkpoints.path_of(own_folder(out), 7).touch()
        REFUSED["checkpoint"] = lambda: train._newest(own_folder(out))
        got["refused"] = {name: sentence(refusal) for name, refusal in REFUSED.items()}
    torch.save(got, out / f"{rank}.pt")


def trained_with_joint_gradient(case: str, mean) -> dict[str, object]:
    """Training in which the processes average gradients, but each cost takes means over its own part alone."""
    means, processes.means = processes.means, lambda tensors: [mean(x) for x in tensors]
    try:
        return trained(case)
    finally:
        processes.means = means


def own_folder(out: Path) -> Path:
    """A folder of this process, as machines have them that share no disk."""
    folder = out / f"of process {processes.rank()}"
    folder.mkdir(exist_ok=True)
    return folder


def other_weights() -> None:
    run = run_of("hinge")
    with torch.no_grad():
        next(run.D.parameters()).view(-1)[0] += 1e-3 * processes.rank()
    run.fit(1, progress=False)


def other_step() -> None:
    run = run_of("hinge")
    run.steps = processes.rank()
    run.fit(1, progress=False)


def other_pictures() -> None:
    run = run_of("hinge")
    darker = run.data.images.clone()
    darker[-1] //= 1 + processes.rank()
    run.data = dataclasses.replace(run.data, images=darker)
    run.fit(1, progress=False)


REFUSED = {
    "pictures": other_pictures,
    "seed": lambda: run_of("hinge", seed=processes.rank()).fit(1, progress=False),
    "step": other_step,
    "weights": other_weights,
    "batch": lambda: run_of("hinge", batch_size=15),
    "ensemble": lambda: gk.Trainer(*gk.pair(lambda seed: gk.models.mlp(DIGITS.shape), [0, 1]), DIGITS),
}


def sentence(refusal) -> str:
    try:
        refusal()
    except ValueError as error:
        return str(error)
    return "nothing was refused"


def kill(out: Path) -> None:
    """Train; in the first attempt, process 1 is killed before its eighth step."""
    killed = out / "was_killed"  # nodes count their attempts apart
    if os.environ["RANK"] == "1" and not killed.exists():
        step = gk.Trainer.step

        def dies(run: gk.Trainer):
            if run.steps == 7:
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return step(run)

        gk.Trainer.step = dies
    sys.exit(commands.main(command(out, 12)))


def train_on_nodes(out: Path) -> None:
    with processes.joined():
        node = f"{os.environ['GROUP_RANK']} of {os.environ['GROUP_WORLD_SIZE']}"
        torch.save(trained("hinge") | {"node": node}, out / f"{processes.rank()}.pt")


def go_on(out: Path) -> None:
    sys.exit(commands.main(command(out, 5)))


TASKS = {"compare": compare, "kill": kill, "train_on_nodes": train_on_nodes, "go_on": go_on}


if __name__ == "__main__":
    torch.set_num_threads(1)
    TASKS[sys.argv[1]](Path(sys.argv[2]))
