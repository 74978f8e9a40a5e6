"""IO500: configurations, every published layout of its results, the strict score, and the public reference.

The summaries, result.txt and config.ini under test/data are files of the public archive
IO500/submission-data, unchanged (MeluXina 550, Aion 583, one of each older layout). Invalid, cut and
damaged ones are made of them here, by the layouts of the program's README.
"""

import re
import unittest
from collections import Counter
from pathlib import Path

from test import fakes  # noqa: F401 - puts src on the path

from aifbench.errors import ConfigError, UsageError
from aifbench.workloads.io500_ini import parse_ini, read_ini, with_directories
from aifbench.workloads.io500_profiles import PROFILES, ini_of, profile
from aifbench.workloads.io500_reference import meluxina, public_figures, shares_of_meluxina, standing
from aifbench.workloads.io500_review import review
from aifbench.workloads.io500_score import SCORED_PHASES, Origin, Printed, origin_of, strict_score
from aifbench.workloads.io500_summary import Summary, decode, joined, parse_result, parse_summary

DATA = Path(__file__).parent / "data"
HERE, THERE = Path("/fs/mine/data"), Path("/out/run")


def public(name: str) -> str:
    return (DATA / f"io500_{name}").read_text()


MELUXINA = public("meluxina_2021_summary.txt")


def codes(summary: Summary, stonewall_s: int = 300) -> list[str]:
    return [finding.code for finding in review(summary, stonewall_s)]


class Configuration(unittest.TestCase):
    def test_a_published_one_is_accepted(self) -> None:
        ini = read_ini(public("meluxina_2021.ini"))
        self.assertEqual(("32g", 300), (ini.value("IOR-easy", "BLOCKSIZE"), ini.stonewall_s))

    def test_every_mistake_is_named_with_its_line(self) -> None:
        text = (
            "[globl]\ndatadir = /x\n[ior-easy]\ntransfersise = 2m\ntransferSize = -2m\nfilePerProc = yes\n"
            "[ior-easy]\n[mdtest-easy]\nn = 0\nn = 5\nwhat is this\n[ior-hard]\nsegmentCount = 1e6\n"
        )
        said = [str(problem) for problem in parse_ini(text).problems]
        for expected in (
            "line 1: [globl] is not a section of IO500 (did you mean global?)",
            "line 4: [ior-easy] has no setting transfersise (did you mean transfersize?)",
            "line 5: [ior-easy] transferSize cannot be '-2m' (give a size from 1, such as 2m or 32g)",
            "line 6: [ior-easy] filePerProc cannot be 'yes' (give TRUE or FALSE)",
            "line 7: [ior-easy] was begun in line 3 already (keep one of them)",
            "line 9: [mdtest-easy] n cannot be '0' (give a whole number from 1)",
            "line 10: [mdtest-easy] n is set a second time",
            "line 11: 'what is this' is neither a section nor a setting",
            "line 13: [ior-hard] segmentCount cannot be '1e6' (give a whole number from 1)",
        ):
            self.assertIn(expected, said)
        self.assertEqual(9, len(said))
        with self.assertRaisesRegex(ConfigError, "line 1: .*line 13: "):
            read_ini(text)

    def test_more_mistakes(self) -> None:
        for text in (
            "n = 5",
            "[ior-easy]\ntransferSize = 2m\nblockSize = 3m",
            "[debug]\nstonewall-time = 0",
            "[global]\ndataPacketType = zeros",
            "[ior-easy]\nblockSize = lots",
            "[global\nscc = TRUE",
        ):
            self.assertTrue(parse_ini(text).problems, text)

    def test_comments_empty_values_and_options_of_an_interface_are_fine(self) -> None:
        text = "# c\n[ior-easy] ; c\nAPI =\nposix.odirect = 1\nblockSize = 4m # 8m\n"
        text += "\n[Debug]\nSTONEWALL-time = 7\n"
        ini = read_ini(text)
        self.assertEqual(
            ("4m", "", 7), (ini.value("ior-easy", "blocksize"), ini.value("ior-easy", "api"), ini.stonewall_s)
        )

    def test_a_copy_has_our_directories_and_all_else_as_it_was(self) -> None:
        text = public("meluxina_2021.ini")
        copy = with_directories(text, HERE, THERE)
        ini = read_ini(copy)
        self.assertEqual(
            (str(HERE), str(THERE)), (ini.value("global", "datadir"), ini.value("global", "resultdir"))
        )
        self.assertEqual("FALSE", ini.value("global", "timestamp-resultdir"))
        ours = ("datadir", "resultdir", "timestamp-")
        rest = [line for line in text.splitlines() if not line.startswith(ours)]
        self.assertEqual(rest, [line for line in copy.splitlines() if not line.startswith(ours)])
        self.assertEqual(
            str(HERE), read_ini(with_directories("[debug]\n", HERE, THERE)).value("global", "datadir")
        )

    def test_paths_that_such_a_file_would_cut(self) -> None:
        for path in ("/a#b", "/a;b", "relative", "/a\nb", "/a "):
            with self.assertRaises(ConfigError):
                with_directories("", Path(path), THERE)

    def test_profiles(self) -> None:
        for chosen in PROFILES.values():
            ini = read_ini(ini_of(chosen, HERE, THERE))
            self.assertEqual(chosen.stonewall_s, ini.stonewall_s)
            self.assertEqual("TRUE" if chosen.is_student_cluster else "", ini.value("global", "scc"))
        small = read_ini(ini_of(PROFILES["quick"], HERE, THERE, block_mib=7, segments=3, files=11))
        self.assertEqual(
            ("6m", "3", "11"),
            (
                small.value("ior-easy", "blocksize"),
                small.value("ior-hard", "segmentcount"),
                small.value("mdtest-hard", "n"),
            ),
        )
        with self.assertRaisesRegex(UsageError, "list-valid"):
            profile("list-vald")


class Layouts(unittest.TestCase):
    def test_each_published_layout(self) -> None:
        for name, version, total, phases, extended in (
            ("meluxina_2021", "io500-isc21", 194.118890, 13, None),
            ("aion_2021", "io500-isc21", 11.345219, 13, None),
            ("shell_2019", "", 537.315, 12, None),
            ("extended_2021", "io500-sc21", 12.549643, 22, 12.662357),
        ):
            found = parse_summary(public(f"{name}_summary.txt"))
            assert found.totals is not None
            more = found.extended_totals.total.value if found.extended_totals else None
            self.assertEqual(
                (version, total, phases, extended),
                (found.version, found.totals.total.value, len(found.phases), more),
            )
            self.assertTrue(found.is_complete, name)
            self.assertEqual((), review(found), name)
            self.assertEqual(Origin.STRICT, origin_of(found.totals.total, found.printed))
        shell = parse_summary(public("shell_2019_summary.txt")).phase("ior-easy-write")
        assert shell is not None
        self.assertEqual((114.583, "GiB/s", 461.11), (shell.score.value, shell.unit, shell.time_s))

    def test_result_txt_says_the_same_and_more(self) -> None:
        summary, details = parse_summary(MELUXINA), parse_result(public("meluxina_2021_result.txt"))
        both = joined(summary, details)
        self.assertEqual(
            {name: details.values[name] for name in SCORED_PHASES},
            {name: both.values[name] for name in SCORED_PHASES},
        )
        write = both.phase("ior-easy-write")
        assert write is not None
        self.assertEqual((492.19, 440.642412, 561.866), (write.stonewall, write.score.value, write.time_s))
        self.assertEqual(("802EC096", "D47BF9B1"), (both.config_hash, both.score_hash))

    def test_labels_of_srun_noise_of_32k_ranks_and_other_bytes(self) -> None:
        noise = "".join(f"{rank}: rank {rank} \udce9\n" for rank in range(32_768)).encode(
            "utf-8", "surrogateescape"
        )
        labelled = "".join(f"0: {line}\n" for line in MELUXINA.splitlines())
        lines = labelled.splitlines(keepends=True)
        text = decode("".join(lines[:5]).encode() + noise + "".join(lines[5:]).encode() + b"\xff\x00")
        found = parse_summary(text)
        self.assertEqual(parse_summary(MELUXINA).values, found.values)
        self.assertTrue(found.is_complete)

    def test_text_of_another_rank_before_a_line(self) -> None:
        text = MELUXINA.replace("[RESULT]                 find", "slow OST 7[RESULT]                 find")
        self.assertEqual(1557.912359, parse_summary(text).values["find"])

    def test_the_label_gb_and_marks_of_the_first_releases(self) -> None:
        text = MELUXINA.replace("GiB/s", "GB/s").replace("[SCORE ]", "[SCORE INVALID]")
        found = parse_summary(text)
        self.assertTrue(found.is_complete and found.is_marked_invalid)
        assert found.totals is not None
        self.assertEqual(112.064428, found.totals.bandwidth.value)

    def test_of_several_runs_the_last(self) -> None:
        aion = public("aion_2021_summary.txt")
        found = parse_summary(MELUXINA[:600] + "\n" + aion)
        self.assertEqual((11.345219, ()), (found.totals.total.value if found.totals else 0, found.repeated))

    def test_nothing_of_it(self) -> None:
        for text in ("", "slurmstepd: error: *** JOB 7 CANCELLED ***", "[RESULT]", "[SCORE", "\x00" * 10):
            self.assertEqual(
                ["IO500_NO_RESULT"], [c for c in codes(parse_summary(text)) if "DAMAGED" not in c]
            )
        self.assertEqual((), parse_result("[ior-easy-write]\nscore = oops\n[SCORE]\nMD =\n").phases)


class Verdicts(unittest.TestCase):
    def test_cut_anywhere_is_never_valid(self) -> None:
        for end in range(0, len(MELUXINA) - 40, 37):
            fatal = [finding for finding in review(parse_summary(MELUXINA[:end])) if finding.is_fatal]
            self.assertTrue(fatal, end)
        self.assertIn("ends after mdtest-hard-stat", review(parse_summary(MELUXINA[:800]))[0].message)

    def test_a_phase_of_zero_counts(self) -> None:
        text = re.sub(r"(ior-hard-write +)\S+", r"\g<1>0.000000", MELUXINA)
        others = [
            v
            for k, v in parse_summary(MELUXINA).values.items()
            if k.startswith("ior-") and k != "ior-hard-write"
        ]
        flattering = (others[0] * others[1] * others[2]) ** (1 / 3)
        total = (flattering * 336.254278) ** 0.5
        text = re.sub(r"TOTAL \S+", f"TOTAL {total:.6f}", text)
        found = parse_summary(text)
        self.assertGreater(total, 194.2)
        self.assertEqual(0, strict_score(found.values).total)
        self.assertEqual(("ior-hard-write",), strict_score(found.values).lacking)
        assert found.totals is not None
        self.assertEqual(Origin.LENIENT, origin_of(found.totals.total, found.printed))
        self.assertEqual(["IO500_ZERO_PHASE"], codes(found))

    def test_reasons_decide_between_invalid_and_merely_short(self) -> None:
        marked = re.sub(r"(?m)$", " [INVALID]", MELUXINA.rstrip())
        short = "; ERROR INVALID stonewall-time != 300\n"
        burst = "; ERROR INVALID Write phase needed 0.020932s instead of stonewall 1s.\n"
        asked = joined(parse_summary(marked), parse_result(short))
        self.assertEqual(["IO500_NOT_FOR_THE_LIST"], codes(asked, 5))
        self.assertEqual(["IO500_INVALID"], codes(asked, 300))
        self.assertEqual(
            ["IO500_INVALID"], codes(joined(parse_summary(marked), parse_result(short + burst)), 5)
        )

    def test_written_in_less_than_the_stonewall(self) -> None:
        text = re.sub(r"(ior-easy-write.*time )\S+", r"\g<1>12.5", MELUXINA)
        self.assertEqual(["IO500_SHORT_WRITE"], codes(parse_summary(text)))
        self.assertEqual([], codes(parse_summary(text), 10))

    def test_processes_that_each_ran_alone(self) -> None:
        aion = public("aion_2021_summary.txt").splitlines()
        mixed = "\n".join(line for pair in zip(MELUXINA.splitlines(), aion, strict=True) for line in pair)
        self.assertIn("IO500_NOT_ONE_RUN", codes(parse_summary(mixed)))

    def test_a_total_that_was_changed(self) -> None:
        self.assertEqual(
            ["IO500_TOTAL_DIFFERS"], codes(parse_summary(MELUXINA.replace("TOTAL 194.", "TOTAL 294.")))
        )

    def test_nan_is_zero(self) -> None:
        text = re.sub(r"(find +)\S+", r"\g<1>-nan", MELUXINA)
        self.assertIn("IO500_ZERO_PHASE", codes(parse_summary(text)))


class Reference(unittest.TestCase):
    def test_every_published_total_is_explained_to_its_last_digit(self) -> None:
        """361 follow by today's formula; four are of 2017's, which was the product."""
        origins = Counter(origin_of(figure.total, figure.phases) for figure in public_figures())
        self.assertEqual({Origin.STRICT: 361, Origin.PRODUCT: 4}, dict(origins))

    def test_published_means_are_explained_too(self) -> None:
        for figure in public_figures():
            product = figure.bandwidth.value * figure.metadata.value
            printed = (
                figure.total.value
                if origin_of(figure.total, figure.phases) is Origin.PRODUCT
                else figure.total.value**2
            )
            self.assertAlmostEqual(1, product / printed, places=2)

    def test_meluxina(self) -> None:
        self.assertEqual(("LuxProvide", 2021), (meluxina().institution, meluxina().year))
        easy, find = shares_of_meluxina({"ior-easy-write": 3.4425, "find": 77.9}, nodes=4)
        self.assertAlmostEqual(1.0, easy.share, places=2)
        self.assertEqual("GiB/s per node", easy.unit)
        self.assertAlmostEqual(0.05, find.share, places=3)

    def test_standing(self) -> None:
        nothing, ours = standing(strict_score({})), standing(meluxina().strict)
        self.assertEqual(0, nothing.above)
        self.assertTrue(0 < ours.percentile < 100)
        best = max((figure.strict for figure in public_figures()), key=lambda score: score.total)
        self.assertEqual(best and standing(best).systems - 1, standing(best).above)

    def test_printed_digits(self) -> None:
        self.assertEqual(Printed(0.067, 0.0005), Printed.of("0.067"))
        self.assertEqual(0.0, Printed.of("inf").value)


if __name__ == "__main__":
    unittest.main()
