"""The command line: `gankit COMMAND`. Each command is a module of this room."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

import gankit
from gankit.commands import (
    classifier,
    classify,
    evaluate,
    flags,
    import_biggan,
    pack,
    plot,
    recipes,
    sample,
    sequence,
    train,
)
from gankit.training import Diverged
from gankit.training.checkpoints import CheckpointError

COMMANDS = (train, sample, evaluate, plot, recipes, classifier, classify, sequence, pack, import_biggan)

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
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        arguments.run(arguments)
    except Diverged as error:
        print(f"gankit: {error}", file=sys.stderr)
        return 1
    except (ValueError, CheckpointError, OSError, ImportError) as error:
        print(f"gankit: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gankit: stopped; the same command goes on from what is saved", file=sys.stderr)
        return 130
    except (RuntimeError, MemoryError) as error:
        # PyTorch has a type of its own for a full GPU, and none for a full main memory.
        out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not out_of_memory and "can't allocate memory" not in str(error):
            raise
        print("gankit: out of memory; a smaller --batch-size, --width or -n needs less", file=sys.stderr)
        return 1
    return 0


def _parser() -> flags.Parser:
    parser = flags.Parser(
        prog="gankit",
        description="Train, sample and evaluate GANs.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"gankit {gankit.__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    known = {flag for command in commands.choices.values() for flag in command._option_string_actions}
    parser.flags = tuple(sorted(flag for flag in known if flag.startswith("--")))
    return parser


if __name__ == "__main__":
    sys.exit(main())
