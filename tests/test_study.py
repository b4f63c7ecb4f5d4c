"""`pynn study`: its files, its figures, its claims, the same weights everywhere, and its errors."""

import gzip
import hashlib
import html
import http.server
import importlib
import itertools
import json
import math
import re
import threading

import numpy as np
import pytest

import pynn
from conftest import ISAS, LACKING
from pynn import cli

for _module in ("matplotlib", "sklearn", "rich", "pooch"):
    pytest.importorskip(_module)
data = importlib.import_module("pynn.study.data")
experiments = importlib.import_module("pynn.study.experiments")

INITS = ["std 1", "std 0.01", "Xavier", "He", "equal"]
LAYERS = {(name, init) for name in ("sigmoid", "tanh", "relu") for init in INITS}
TRAINED = ["std 0.01", "Xavier", "He", "equal"]


@pytest.fixture
def small(tmp_path):
    """An .npz of 200 samples of 3 classes."""
    rng = np.random.default_rng(0)
    t = rng.integers(0, 3, 200)
    path = tmp_path / "small.npz"
    np.savez(path, x=rng.standard_normal((200, 6)) + 2 * np.eye(6)[t], t=t)
    return path


def test_files(quick_study):
    folder = quick_study.folder
    assert [p.name for p in folder.parent.iterdir()] == ["out"]
    figures = sorted(folder.glob("*.png"))
    assert {p.name for p in folder.iterdir()} == {p.name for p in figures} | {
        "report.html",
        "results.json",
    }
    assert len(figures) >= 5
    from matplotlib.image import imread

    for path in figures:
        image = imread(path)
        assert min(image.shape[:2]) > 300 and image[..., :3].std() > 0.02, path.name


def test_report_is_self_contained(quick_study):
    """Every claim with what was measured, every figure inside, nothing from elsewhere."""
    text = (quick_study.folder / "report.html").read_text(encoding="utf-8")
    for attribute, target in re.findall(r'\b(src|href)="([^"]*)"', text):
        assert target.startswith("data:" if attribute == "src" else ("#", "data:", "https://")), (
            target
        )
    assert not re.search(r"<script[^>]+src|@import|url\((?!['\"]?data:)|<link[^>]+stylesheet", text)
    figures = [p for p in quick_study.folder.iterdir() if p.suffix == ".png"]
    assert text.count("data:image/png;base64,") >= len(figures)
    plain = html.unescape(re.sub(r"<[^>]+>", "", text))
    for claim in quick_study.results["claims"]:
        assert claim["claim"] in plain
    assert plain.count("holds") + plain.count("does not hold") >= 7
    assert quick_study.results["weights_sha256"] in plain


def test_seven_claims(quick_study):
    claims = quick_study.results["claims"]
    assert len(claims) == 7
    for claim in claims:
        assert claim["claim"] and claim["measured"] and isinstance(claim["holds"], bool)
        verdict = "holds" if claim["holds"] else "does not hold"
        assert claim["claim"] in quick_study.process.stdout
        assert f"{claim['title']}: {verdict}" in quick_study.process.stdout
    assert claims[1]["holds"] and claims[6]["holds"], "equal weights; learning compared on digits"


def test_results(quick_study):
    """Versions, seed, hash; every number finite."""
    results = quick_study.results
    assert results["seed"] == 0 and results["iterations"] == 300
    assert results["versions"]["pynn"] == pynn.__version__
    assert re.fullmatch("[0-9a-f]{64}", results["weights_sha256"])
    assert results["weights_sha256"] in quick_study.process.stdout
    assert "null" not in (quick_study.folder / "results.json").read_text()
    assert results["data"]["features"] == 64 and results["data"]["classes"] == 10
    layers = results["activations_and_gradients"]
    assert {(name, init) for name, row in layers.items() for init in row} == LAYERS
    assert all(len(five) == 5 for row in layers.values() for five in row.values())


def test_activations_are_the_books(quick_study):
    """The seed's points, from the numbers themselves."""
    layers = quick_study.results["activations_and_gradients"]
    for row in layers.values():
        for init, five in row.items():
            for layer in five:
                total = sum(layer["histogram"]) + (
                    layer["zero"] if len(layer["histogram"]) > 30 else 0
                )
                assert math.isclose(total, 1, abs_tol=1e-3)
                dead = round(100 * layer["dead"])  # alike, they count as one
                assert layer["distinct"] == (1 if init == "equal" else 100 - max(0, dead - 1))
    large, small = layers["sigmoid"]["std 1"], layers["sigmoid"]["std 0.01"]
    assert all(v["histogram"][0] + v["histogram"][-1] > 0.5 and v["saturated"] > 0.3 for v in large)
    assert all(sum(v["histogram"][12:18]) > 0.99 and v["saturated"] == 0 for v in small)
    for layer in layers["tanh"]["Xavier"]:  # the negative half is there
        assert 0.4 < sum(layer["histogram"][:15]) < 0.6 and layer["std"] > 0.2
    he = layers["relu"]["He"]
    assert math.isclose(he[0]["std"], math.sqrt(1 - 1 / math.pi), rel_tol=0.05)
    assert max(v["std"] for v in he) < 1.3 * min(v["std"] for v in he)
    assert all(0.3 < v["gradient_std"] < 3 for v in he)
    vanishing = [v["gradient_std"] for v in layers["relu"]["std 0.01"]]
    assert all(10 * a < b for a, b in itertools.pairwise(vanishing))


def test_training_is_the_books(quick_study):
    training = quick_study.results["training"]
    assert set(training) == {*TRAINED, *(f"{name}, decay 0.01" for name in TRAINED)}
    loss = {name: run["final"]["loss"] for name, run in training.items()}
    assert loss["He"] < 0.8 and loss["He"] < loss["Xavier"] < loss["std 0.01"]
    assert training["He"]["final"]["held_out_accuracy"] > 0.85
    for name in TRAINED:
        run, decayed = training[name], training[f"{name}, decay 0.01"]
        assert decayed["final"]["weight_norm"] < run["final"]["weight_norm"]
        assert len(run["batch_loss"]) == 300 and len(run["loss"]) == len(run["iterations"])
    assert training["equal"]["distinct"] == [1, 1, 1, 1]
    assert min(training["He"]["distinct"]) > 50


def test_same_weights_under_every_setting(small, every_setting, monkeypatch):
    monkeypatch.setattr(experiments, "SAMPLES", 20)
    dataset = data.load(str(small), 3)
    known = None
    for setting in every_setting():
        results = experiments.run(dataset, 3, 3)
        hashes = [results.weights_sha256, *(run.sha256 for run in results.training.values())]
        known = known or hashes
        assert hashes == known, setting
    other = experiments.run(dataset, 4, 3)
    assert other.weights_sha256 != known[0]


def test_environment_and_file(small, run, tmp_path):
    """The same hash from the command line, under variables that force a set and threads."""
    names = [name for name in ISAS if name not in LACKING and name != "portable"] or ["portable"]
    found = {}
    for name, threads in ((names[0], 1), (names[-1], 5)):
        command = ("-m", "pynn", "study", "--data", small, "--iterations", "3", "--seed", "3")
        out = tmp_path / f"{name}-{threads}"
        result = run(*command, "--out", out, PYNN_ISA=name, PYNN_NUM_THREADS=str(threads))
        assert result.returncode == 0, result.stderr
        found[threads] = json.loads((out / "results.json").read_text())
        surroundings = found[threads]["environment"]
        assert (surroundings["isa"], surroundings["threads"]) == (name, threads)
    assert found[1]["weights_sha256"] == found[5]["weights_sha256"]
    assert found[1]["iterations"] == 3 and found[1]["seed"] == 3
    assert found[1]["training"] == found[5]["training"]
    dataset = data.load(str(small), 3)
    assert found[1]["weights_sha256"] == experiments.run(dataset, 3, 3).weights_sha256


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path.name


def bad_files(folder):
    """Command lines with files that cannot be used."""
    (folder / "text.npz").write_text("not a zip")
    (folder / "file").write_text("in the way")
    x, t = np.ones((200, 3)), np.arange(200) % 2
    yield "text.npz", ["--data", "text.npz"]
    yield "missing.npz", ["--data", "missing.npz"]
    yield "x and t", ["--data", npz(folder / "no_t.npz", x=x)]
    yield r"\(200,\)|\(100,\)", ["--data", npz(folder / "shapes.npz", x=x, t=t[:100])]
    yield "finite|NaN", ["--data", npz(folder / "nan.npz", x=x * np.nan, t=t)]
    yield "few", ["--data", npz(folder / "few.npz", x=x[:9], t=t[:9])]
    yield "class", ["--data", npz(folder / "class.npz", x=x, t=0 * t)]
    yield "real|dtype", ["--data", npz(folder / "complex.npz", x=x * 1j, t=t)]
    yield "whole", ["--data", npz(folder / "halves.npz", x=x, t=t / 2)]
    yield "file", ["--out", "file"]
    yield "file", ["--out", "file/below"]


BAD_ARGUMENTS = [
    ("iterations", ["--iterations", "0"]),
    ("iterations", ["--iterations", "ten"]),
    ("seed", ["--seed", "-1"]),
    ("seed", ["--seed", "1.5"]),
    ("cifar", ["--data", "cifar"]),
    ("--fast", ["--fast"]),
    ("--data", ["--data"]),
]


def test_errors(tmp_path, monkeypatch, capsys):
    """Bad input: one clear line on standard error, exit code 2, nothing written."""
    monkeypatch.chdir(tmp_path)
    cases = [*BAD_ARGUMENTS, *bad_files(tmp_path)]
    before = sorted(tmp_path.rglob("*"))
    for named, arguments in cases:
        assert cli.main(["study", *arguments]) == 2, arguments
        out, err = capsys.readouterr()
        assert len(err.splitlines()) == 1 and re.search(named, err) and not out, (arguments, err)
        assert sorted(tmp_path.rglob("*")) == before, arguments
    for arguments in ([], ["study", "extra"], ["studies"]):
        assert cli.main(arguments) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_errors_of_the_process(run, tmp_path):
    result = run("-m", "pynn", "study", "--data", "missing.npz", cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and not result.stdout
    assert "missing.npz" in result.stderr and not any(tmp_path.iterdir())
    result = run("-m", "pynn", "--version", cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.strip() == f"pynn {pynn.__version__}"


def idx(array):
    """An array of bytes in MNIST's format."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A server on this machine in place of MNIST's; files of the right form, of few digits."""
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, (200, 28, 28), np.uint8),
        np.arange(200, dtype=np.uint8) % 10,
        rng.integers(0, 256, (160, 28, 28), np.uint8),
        np.arange(160, dtype=np.uint8) % 10,
    ]
    served = dict(zip(data.MNIST_FILES, map(idx, arrays), strict=True))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(served[self.path.strip("/").removesuffix("-ubyte.gz")])

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(data, "MNIST_URL", f"http://127.0.0.1:{server.server_port}/")
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in served.items()}
        monkeypatch.setattr(data, "MNIST_FILES", hashes)
        yield served, arrays
        server.shutdown()


def test_mnist(mnist):
    """Fetched once, checked, kept: the second time no network is needed."""
    served, arrays = mnist
    first = data.load("mnist", 0)
    assert first.x.shape == (200, 784) and first.x_held.shape == (160, 784) and first.classes == 10
    assert np.array_equal(first.t, arrays[1]) and first.x.dtype == np.float32
    assert np.array_equal(
        first.x, (arrays[0].reshape(200, 784) / np.float32(255)).astype(np.float32)
    )
    served.clear()
    assert np.array_equal(data.load("mnist", 0).x, first.x)


def test_mnist_of_a_wrong_hash(mnist, tmp_path, capsys, monkeypatch):
    """Not used, not kept as if it were right; exit code 1 and the offline choice named."""
    monkeypatch.chdir(tmp_path)
    name = next(iter(data.MNIST_FILES))
    data.MNIST_FILES[name] = "0" * 64
    assert cli.main(["study", "--data", "mnist"]) == 1
    progress, error = capsys.readouterr().err.splitlines()
    assert progress == "Download ..." and "digits" in error
    assert not (tmp_path / "pynn-study").exists()


def test_mnist_without_network(tmp_path, monkeypatch, capsys):
    """One line that names the offline choice, exit code 1, nothing written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "MNIST_URL", "http://127.0.0.1:9/")
    assert cli.main(["study", "--data", "mnist"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--data digits" in err
    assert not (tmp_path / "pynn-study").exists()


BROKEN = {
    "empty": b"",
    "no gzip": b"plain",
    "head cut off": gzip.compress(b"\x00\x00\x08"),
    "unknown type": gzip.compress(b"\x00\x00\x0d\x01\x00\x00\x00\x00"),
    "gzip cut off": idx(np.zeros((3, 4), np.uint8))[:-9],
    "data cut off": gzip.compress(gzip.decompress(idx(np.zeros(9, np.uint8)))[:-1]),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_idx_files(content, tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises((ValueError, OSError), match=r"file\.gz|gzip"):
        data.read_idx(path)


def test_data_of_a_file(tmp_path):
    """One-hot or labels, any real dtype, any axes: scaled exactly, split by the seed."""
    rng = np.random.default_rng(1)
    images, t = rng.integers(0, 256, (200, 4, 5), np.uint8), np.arange(200) % 3
    labels = data.load(str(tmp_path / npz(tmp_path / "a.npz", x=images, t=t + 7)), 0)
    one_hot = data.load(str(tmp_path / npz(tmp_path / "b.npz", x=images / 255, t=np.eye(3)[t])), 0)
    assert labels.x.shape == (160, 20) and labels.x_held.shape == (40, 20) and labels.classes == 3
    assert np.allclose(labels.x, one_hot.x, atol=1e-7) and np.array_equal(labels.t, one_hot.t)
    assert set(labels.t) == {0, 1, 2} and labels.x.min() >= 0 and labels.x.max() <= 1
    other = data.load(str(tmp_path / "a.npz"), 1)
    assert not np.array_equal(other.t, labels.t)
