"""The command line: `gankit COMMAND`. Each command is a module of this room, loaded when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from gankit.commands import flags
from gankit.files import CheckpointError
from gankit.version import __version__

COMMANDS = {
    "train": ("train", "train a recipe"),
    "sample": ("sample", "write samples: a grid, an array or a PNG each"),
    "invert": ("invert", "find the latents of given pictures"),
    "export": ("export", "write the generator for other programs"),
    "evaluate": ("evaluate", "measure a run"),
    "plot": ("plot", "draw the learning curves of runs"),
    "recipes": ("recipes", "list the recipes, or show one"),
    "classifier": ("classifier", "train the classifier that evaluation uses"),
    "classify": ("classify", "train a classifier on generated images"),
    "sequence": ("sequence", "train GANs that complete each other"),
    "pack": ("pack", "decode pictures once, for training at the speed of memory"),
    "verify": ("pack", "read a whole pack and compare its checksums"),
    "import-biggan": ("import_biggan", "read a checkpoint of BigGAN-PyTorch"),
    "import-stylegan2": ("import_stylegan2", "read weights of stylegan2-ada-pytorch"),
}
"""Name -> its module, and what it does in a line."""

EXAMPLES = """\
examples:
  gankit recipes
      what can be trained
  gankit train mm-nsat-digits --out runs/a
      train; goes on where it stopped if runs/a exists
  gankit train ns-ring --seed 0 1 2 3 --out runs/b
      four seeds side by side
  gankit sample runs/a
      write a grid of samples, runs/a/samples.png
  gankit sample runs/a --n 1000 --labels cat --to cats
      a thousand pictures of one class, each in a file of its own
  gankit sample runs/a --walk 100
      an animated picture of a way through the latents, runs/a/walk.gif
  gankit export runs/a --to G.pt2
      the generator, for programs that do not have gankit
  gankit evaluate runs/a
      print a table, write runs/a/evaluation.json
  gankit evaluate runs/a --curve
      the same of every checkpoint that train --keep-every kept
  gankit classify --from runs/c --filter
      how well a classifier of its images does on real ones (a conditional run)
  gankit plot runs/a runs/b
      draw what both logged, runs/a/curves.png
  gankit evaluate runs/a -n 50000 --features inception --metrics fd is
      FID and IS
  gankit pack imagenet imagenet128 --split train --size 128
      decode pictures once; train with --data imagenet128
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0 when all went well, 2 for input that cannot be used, 1 for a run that failed. What
        went wrong is said in one line on stderr.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        parser = _parser(next((word for word in words if not word.startswith("-")), ""))
        arguments, unknown = parser.parse_known_args(words)
        if unknown:
            parser.of(arguments.command).error(f"unrecognized arguments: {' '.join(unknown)}")
        if arguments.command is None:
            parser.print_help()
            return 0
        arguments.run(arguments)
    except (ValueError, CheckpointError, OSError, ImportError) as error:
        print(f"gankit: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gankit: stopped; the same command goes on from what is saved", file=sys.stderr)
        return 130
    except (RuntimeError, MemoryError) as error:
        print(f"gankit: {_failure(error)}", file=sys.stderr)
        return 1
    return 0


def _failure(error: Exception) -> str:
    """What a run that failed has to say; anything but divergence and a full memory is a bug, and raised."""
    import torch

    from gankit.training import Diverged

    if isinstance(error, Diverged):
        return str(error)
    # PyTorch has a type of its own for a full GPU, and none for a full main memory.
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if not out_of_memory and "can't allocate memory" not in str(error):
        raise error
    return "out of memory; a smaller --batch-size, --width or -n needs less"


def _parser(only: str | None = None) -> flags.Parser:
    """The parser of all commands, or one that knows the flags of a single command and of the others the names."""
    parser = flags.Parser(
        prog="gankit",
        description="Train, sample and evaluate GANs.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"gankit {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    asked = COMMANDS.get(only, (only, ""))[0]
    for name, (module, about) in COMMANDS.items():
        if name in commands.choices:  # of a module with two commands
            continue
        if only is None or module == asked:
            importlib.import_module(f"gankit.commands.{module}").add(commands)
        else:
            commands.add_parser(name, help=about)
    parser.commands = commands.choices
    return parser


if __name__ == "__main__":
    sys.exit(main())
