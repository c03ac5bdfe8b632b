"""`asrcompress COMMAND`: every module of this folder is a command.

A command module has a docstring whose first line is its help, `add_arguments(parser)` and `run(args)`.
It imports what is heavy inside `run`, so that `asrcompress --help` is quick and works in both environments. One that
says NEEDS_K2 = True is run by a Python that has k2.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

import asrcompress
from asrcompress import registry
from asrcompress.errors import UserError
from asrcompress.files import as_sentence
from asrcompress.fsa import interpreter


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command with the arguments `argv`, or those of the process; 1 after a UserError, which is printed."""
    parser = argparse.ArgumentParser(prog="asrcompress", description=asrcompress.__doc__)
    parser.add_argument("--version", action="version", version=asrcompress.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in registry.names(__name__):
        command = importlib.import_module(f"{__name__}.{name}")
        summary = (command.__doc__ or "").strip().splitlines()[0]
        sub = commands.add_parser(name.replace("_", "-"), help=summary, description=command.__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run, needs_k2=getattr(command, "NEEDS_K2", False))
    args = parse(parser, argv)
    try:
        if args.needs_k2 and not interpreter.here():
            return interpreter.run(interpreter.of_k2(), sys.argv[1:] if argv is None else argv)
        args.run(args)
    except (UserError, OSError) as error:
        sentence = as_sentence(error) if isinstance(error, OSError) else error
        if sentence is None:
            raise
        print(f"asrcompress {args.command}: {sentence}", file=sys.stderr)
        return 1
    return 0


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """`parse_args`, but the overrides of a command may stand before, between and after its options.

    argparse takes a positional argument of many words from one place only, and its `parse_intermixed_args` knows no
    commands.
    """
    args, rest = parser.parse_known_args(argv)
    if rest and (not hasattr(args, "overrides") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args
