"""Trains a classifier of handwritten digits, as a job that may be stopped at any moment.

Each epoch ends with a checkpoint, and a run that finds one goes on from it. What an epoch does
depends only on the seed and its number, so a run that was killed half-way ends with the very
model of a run that was not.

Settings come from the environment; what haul sets (HAUL_*) has defaults, so that the program runs
by itself as well.
"""

import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from sklearn.metrics import confusion_matrix, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

EPOCHS = int(os.environ.get("EPOCHS", "30"))
# All that decides what the model becomes. A checkpoint of other settings is not gone on from.
SETTINGS = {
    "learning_rate": float(os.environ.get("LEARNING_RATE", "0.001")),
    "hidden": int(os.environ.get("HIDDEN", "512")),
    "batch": int(os.environ.get("BATCH", "32")),
    "seed": int(os.environ.get("SEED", "1")),
}
DATA = Path(os.environ.get("DATA", "/data")) / "digits.csv"
OUTPUT = Path(os.environ.get("HAUL_OUTPUT_DIR", "output"))
CHECKPOINT = Path(os.environ.get("HAUL_CHECKPOINT_DIR", "checkpoint")) / "digits.pickle"

DIGITS = np.arange(10)
# The held-out part is the same for every seed, so that runs can be compared.
HELD_OUT, SPLIT_SEED = 0.2, 0
STOPPED = 128 + signal.SIGTERM


def say(text):
    print(text, flush=True)


def write_whole(path, data):
    """A reader finds the old file or the new one, never half of it, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def load_digits():
    """8 by 8 pixels of 0 to 16, then the digit, in each line."""
    table = np.loadtxt(DATA, delimiter=",")
    return train_test_split(
        table[:, :64] / 16, table[:, 64].astype(int),
        test_size=HELD_OUT, random_state=SPLIT_SEED, stratify=table[:, 64],
    )


def shifted(pixels):
    """Every image in its place and moved by one pixel to each of the eight sides."""
    padded = np.pad(pixels.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    views = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    return np.concatenate(views).reshape(-1, 64)


def new_run():
    model = MLPClassifier(
        hidden_layer_sizes=(SETTINGS["hidden"],),
        learning_rate_init=SETTINGS["learning_rate"],
        batch_size=SETTINGS["batch"],
        random_state=SETTINGS["seed"],
    )
    return {"settings": SETTINGS, "epoch": 0, "model": model, "history": []}


def resume():
    if not CHECKPOINT.exists():
        return new_run()
    run = pickle.loads(CHECKPOINT.read_bytes())
    if run["settings"] != SETTINGS:
        say(f"checkpoint has other settings ({run['settings']}): starting afresh")
        return new_run()
    say(f"going on from the checkpoint of epoch {run['epoch']}")
    return run


def train(run, signals):
    train_x, test_x, train_y, test_y = load_digits()
    train_x, train_y = shifted(train_x), np.tile(train_y, 9)
    say(f"{len(train_x)} images to learn from, {len(test_x)} held out")
    while run["epoch"] < EPOCHS:
        epoch, begun = run["epoch"] + 1, time.monotonic()
        order = np.random.default_rng((SETTINGS["seed"], epoch)).permutation(len(train_x))
        run["model"].partial_fit(train_x[order], train_y[order], classes=DIGITS)
        chances = run["model"].predict_proba(test_x)
        line = {
            "epoch": epoch,
            "loss": round(float(run["model"].loss_), 6),
            "held_out_loss": round(float(log_loss(test_y, chances, labels=DIGITS)), 6),
            "accuracy": round(float(np.mean(chances.argmax(axis=1) == test_y)), 6),
        }
        run["history"].append(line)
        run["epoch"] = epoch
        write_whole(CHECKPOINT, pickle.dumps(run))
        took = time.monotonic() - begun
        say(
            f"epoch {epoch}/{EPOCHS}: loss {line['loss']:.4f}, held out {line['held_out_loss']:.4f}, "
            f"accuracy {line['accuracy']:.4f} ({took:.2f} s)"
        )
        if signal.SIGUSR1 in signals:
            signals.remove(signal.SIGUSR1)
            say(f"SIGUSR1, the timeout is near: epoch {epoch} is in the checkpoint")
        if signal.SIGTERM in signals and epoch < EPOCHS:
            say(f"SIGTERM: stopped after epoch {epoch}, which is in the checkpoint")
            sys.exit(STOPPED)
    return confusion_matrix(test_y, run["model"].predict(test_x), labels=DIGITS)


def picture(confusion, cell=36):
    """True digits down, predicted ones across; darker is more."""
    side = cell * 11
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    share = confusion / confusion.sum(axis=1, keepdims=True)

    def write(column, row, text, colour):
        x, y = column * cell, row * cell
        draw.text((x + cell / 2 - 3 * len(text), y + cell / 2 - 6), text, fill=colour)

    for true in DIGITS:
        write(0, true + 1, str(true), "black")
        write(true + 1, 0, str(true), "black")
        for seen in DIGITS:
            shade = int(255 * (1 - share[true, seen]))
            box = [(seen + 1) * cell, (true + 1) * cell, (seen + 2) * cell, (true + 2) * cell]
            draw.rectangle(box, fill=(shade, shade, 255), outline="lightgray")
            if confusion[true, seen]:
                dark = share[true, seen] > 0.5
                write(seen + 1, true + 1, str(confusion[true, seen]), "white" if dark else "black")
    return image


def publish(run, confusion):
    write_whole(OUTPUT / "model.pickle", pickle.dumps(run["model"]))
    part = OUTPUT / "confusion.png.part"
    picture(confusion).save(part, format="PNG")
    part.rename(OUTPUT / "confusion.png")
    metrics = {
        "settings": run["settings"],
        "epochs": run["epoch"],
        "accuracy": run["history"][-1]["accuracy"],
        "confusion": confusion.tolist(),
        "history": run["history"],
    }
    # Last: whoever finds the metrics finds the rest as well.
    write_whole(OUTPUT / "metrics.json", json.dumps(metrics, indent=2).encode() + b"\n")


def main():
    if EPOCHS < 1:
        sys.exit(f"EPOCHS is {EPOCHS}: at least 1 is needed")
    # Handlers only take note: an epoch takes a second at most, and ends with a checkpoint.
    signals = set()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _frame: signals.add(number))

    if not DATA.is_file():
        sys.exit(f"{DATA} is not there: examples/images/build data DIR writes the digits")
    run = resume()
    confusion = train(run, signals)
    publish(run, confusion)
    say(f"accuracy {run['history'][-1]['accuracy']:.4f} on held-out digits; results in {OUTPUT}")


if __name__ == "__main__":
    main()
