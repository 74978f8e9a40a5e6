"""Commands for experiments as files: recipes, and the studies they make."""

from argparse import Namespace

from cmd2 import with_argparser

from aifbench.errors import UsageError
from aifbench.repl import completion, studies_wording
from aifbench.repl.parsers import Parser
from aifbench.repl.topic import Topic

_ACTIONS = ("show", "check", "new")


def _recipes_parser() -> Parser:
    return Parser("List the recipes that come with the program and those of this directory.", "recipes")


def _recipe_parser() -> Parser:
    parser = Parser(
        "Show a recipe, check it and say what it amounts to, or write a new one to begin with.",
        "recipe check chroma-quick",
    )
    parser.add_argument("action", choices=_ACTIONS, metavar="ACTION", help=", ".join(_ACTIONS))
    parser.add_argument(
        "recipe",
        metavar="NAME|FILE",
        help="name of a recipe, or a file",
        choices_provider=completion.recipes,
    )
    parser.add_argument(
        "--service",
        metavar="KIND",
        help="new: the kind of service (default: the first there is)",
        choices_provider=completion.kinds,
    )
    return parser


class Studies(Topic):
    DEFAULT_CATEGORY = "Studies"

    @with_argparser(_recipes_parser)
    def do_recipes(self, _args: Namespace) -> None:
        """List the recipes."""
        found = self.session.recipes()
        self._cmd.last_result = found
        self._cmd.poutput(studies_wording.recipes_table(found))

    @with_argparser(_recipe_parser)
    def do_recipe(self, args: Namespace) -> None:
        """Show, check or begin a recipe."""
        if args.service and args.action != "new":
            raise UsageError("--service is for `recipe new`", hint="see `help recipe`")
        if args.action == "show":
            self._cmd.poutput(self.session.recipe_text(args.recipe).rstrip("\n"))
        elif args.action == "check":
            plan = self.session.plan_study(args.recipe)
            self._cmd.last_result = plan
            self._cmd.poutput(studies_wording.plan_text(plan))
        else:
            path = self.session.new_recipe(args.recipe, args.service or self.session.kinds()[0])
            self._cmd.last_result = path
            self._cmd.poutput(f"wrote {path}\n  next: edit it, then `recipe check {args.recipe}`")
