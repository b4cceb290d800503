#!/usr/bin/env python3
"""Hadoop's own tables of shell cases (testHDFSConf.xml, testDeleteConf.xml, testConf.xml), with Apache's shell and
with `mobula fs`, against a cluster of ours each.

    judge.py [--shell NAME] [--verbose] BINARY FOLDER CLASS_PATH [PART OF A DESCRIPTION]...

FOLDER holds the tables and the files that their cases store, as in Hadoop's test sources. CLASS_PATH has Hadoop's
jars and Shells.class.

A case is commands, of which the last one's output (and exit code, where it is told) is compared, and commands that
clean up: as org.apache.hadoop.cli.CLITestHelper and TestHDFSCLI run them. excluded.txt beside this file says which
cases do not count, and why; they run all the same, and must come to an end without a panic.

Prints what differs, and for each shell and at the end "N passed, N failed, N skipped". Exits with 0 only if none
failed and at least one passed.
"""

import argparse
import concurrent.futures
import getpass
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree

TABLES = ["testHDFSConf.xml", "testDeleteConf.xml", "testConf.xml"]
# The words of an explanation are each shell's own, but for the first line: the options.
HELP_TABLE = "testConf.xml"
READY_S_MAX = 60
COMMAND_S_MAX = 60
SLOWEST_SHOWN = 3
# As CommandExecutor parts a command into arguments.
WORD = re.compile(r"'([^']*)'|\"([^\"]*)\"|(\S+)")
USAGE_CODE = 255  # Java's shell returns -1, which a process cannot
# What TestHDFSCLI and TestDeleteCLI set.
SETTINGS = {"dfs.replication": "1", "hadoop.shell.safely.delete.limit.num.files": "5"}
# What our own tool has of dfsadmin, and cases need on their way.
OUR_ADMIN = {"-safemode": "safemode", "-saveNamespace": "save-namespace", "-refreshNodes": "refresh-nodes"}
PANIC = re.compile(r"panicked at|RUST_BACKTRACE|java\.lang\.\w+Error\b")


class Cluster:
    """Lives as long as its standard input is open: it cannot outlive this process."""

    def __init__(self, binary):
        command = [binary, "local", "--datanodes", "3", "--port", "0", "--min-block-size", "0", "--until-stdin-closes"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        self.log = []
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()
        late = threading.Timer(READY_S_MAX, self.process.kill)
        late.start()
        self.uri = self.ready()
        late.cancel()

    def ready(self):
        for line in iter(self.process.stdout.readline, ""):
            if line.startswith("ready "):
                return line.split()[1]
        sys.exit("judge.py: the cluster did not start:\n" + "".join(self.log))

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class MobulaFs:
    def __init__(self, binary, uri):
        self.binary, self.uri = binary, uri
        self.settings = [word for key, value in SETTINGS.items() for word in ("-D", f"{key}={value}")]
        self.environment = {key: value for key, value in os.environ.items() if key != "HADOOP_CONF_DIR"}

    def run(self, tool, words):
        if tool == "fs":
            return self.call(["fs", *self.settings, *words])
        words = words[2:] if words[:1] == ["-fs"] else words
        if words[0] not in OUR_ADMIN:
            return "", 0
        return self.call(["admin", "--fs", self.uri, OUR_ADMIN[words[0]], *words[1:]])

    def call(self, words):
        try:
            done = subprocess.run([self.binary, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=COMMAND_S_MAX, env=self.environment)
        except subprocess.TimeoutExpired:
            return f"panicked at the judge: no end after {COMMAND_S_MAX} s\n", -2
        code = -1 if done.returncode == USAGE_CODE else done.returncode
        return done.stdout.decode("utf-8", "replace"), code

    def end(self):
        pass


class ApacheShell:
    """Apache's shell in one process; Shells.java says how one talks to it."""

    def __init__(self, class_path, log):
        flags = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8",
                 "--add-opens=java.base/java.lang=ALL-UNNAMED", "-Dinterop.log.to=file", f"-Dinterop.log={log}"]
        settings = [f"{key}={value}" for key, value in SETTINGS.items()]
        self.process = subprocess.Popen(["java", *flags, "-cp", class_path, "Shells", *settings],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, tool, words):
        line = "\t".join([tool, *(urllib.parse.quote(word, safe="/:") for word in words)])
        late = threading.Timer(COMMAND_S_MAX, self.process.kill)
        late.start()
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
            code, size = self.process.stdout.readline().split()
            return self.process.stdout.read(int(size)).decode("utf-8", "replace"), int(code)
        except (ValueError, OSError):
            raise RuntimeError(f"Apache's shell is gone, or took more than {COMMAND_S_MAX} s: {tool} {words}")
        finally:
            late.cancel()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Case:
    def __init__(self, table, number, element):
        self.table, self.number = table, number
        self.description = " ".join((element.findtext("description") or "").split())
        self.commands = commands_of(element.find("test-commands"))
        self.cleanup = commands_of(element.find("cleanup-commands"))
        self.expected = [
            (one.findtext("type").strip(), one.findtext("expected-output") or "", one.findtext("expected-exit-code"))
            # One of them has another one in it, by mistake.
            for one in element.iter("comparator") if one.find("comparator") is None]

    def __str__(self):
        return f"{self.table.removesuffix('.xml')} {self.number}: {self.description}"

    def verbs(self):
        for tool, words in self.commands + self.cleanup:
            words = words[2:] if words[:1] == ["-fs"] else words
            yield f"{tool} {words[0]}" if words else tool


def commands_of(element):
    tool = lambda tag: "admin" if "admin" in tag else "fs"
    return [(tool(one.tag), words_of(one.text or "")) for one in (element if element is not None else ())]


def words_of(text):
    return [next(part for part in match.groups() if part is not None) for match in WORD.finditer(text)]


def cases_of(folder):
    for table in TABLES:
        for number, test in enumerate(ElementTree.parse(folder / table).getroot().iter("test"), 1):
            yield Case(table, number, test)


def lines_of(text):
    return [line for line in re.split(r"[\n\r]+", text) if line]


def matches(kind, actual, expected):
    """The comparators of org.apache.hadoop.cli.util, by their names."""
    if kind == "ExactComparator":
        return actual == expected
    if kind == "ExactLineComparator":
        return expected in lines_of(actual)
    if kind == "SubstringComparator":
        return expected in actual
    if kind == "RegexpComparator":
        return any(re.fullmatch(expected, line) for line in lines_of(actual))
    if kind == "RegexpAcrossOutputComparator":
        return re.search(expected, actual) is not None
    if kind == "TokenComparator":
        return all(token in actual for token in re.split(r"[,\n\r]", expected) if token)
    raise ValueError(f"unknown comparator {kind}")


class Exclusions:
    """excluded.txt: a reason in brackets, and below it what it holds for: `SHELL TOOL -VERB`, all cases with such a
    command, `SHELL TABLE NUMBER`, one case, or `SHELL judged by admin`. SHELL is shell, mobula, or both."""

    def __init__(self, path):
        self.rules = {}
        reason = None
        for line in path.read_text().splitlines():
            if line.startswith("["):
                reason = line.strip("[]")
            elif line and not line.startswith("#"):
                shell, rest = line.split(" ", 1)
                for name in ("shell", "mobula") if shell == "both" else (shell,):
                    self.rules[name, rest] = reason

    def reason(self, shell, case):
        names = [f"{case.table.removesuffix('.xml')} {case.number}", f"judged by {case.commands[-1][0]}", *case.verbs()]
        return next((self.rules[shell, name] for name in names if (shell, name) in self.rules), None)


class Judge:
    def __init__(self, name, shell, folder, uri):
        self.name, self.shell = name, shell
        self.places = {"NAMENODE": uri, "CLITEST_DATA": f"file:{folder}/", "USERNAME": getpass.getuser()}

    def fill(self, text):
        for word, value in self.places.items():
            text = text.replace(word, value)
        return text

    def run(self, case):
        """What differs, and all that was said."""
        said, output, code = [], "", 0
        for tool, words in case.commands:
            output, code = self.shell.run(tool, [self.fill(word) for word in words])
            said.append((tool, words, output, code))
        expected = case.expected
        if case.table == HELP_TABLE and self.name == "mobula":
            expected = expected[:1]
        wrong = []
        for kind, text, wanted_code in expected:
            if not matches(kind, output, self.fill(text)):
                wrong.append(f"{kind} {self.fill(text)!r}")
            if wanted_code is not None and int(wanted_code) != code:
                wrong.append(f"exit code {wanted_code}")
        for tool, words in case.cleanup:
            said.append((tool, words, *self.shell.run(tool, [self.fill(word) for word in words])))
        return wrong, said


def tell(wrong, said):
    lines = [f"    wanted {one}" for one in wrong]
    for tool, words, output, code in said:
        lines.append(f"    $ {tool} {' '.join(words)}" + (f"  (exit {code})" if code else ""))
        lines.extend(f"      {line}" for line in output.splitlines())
    return lines


def judge(name, shell, cluster, cases, args):
    """Runs all cases with one shell; gives the lines to print and the counts."""
    exclusions = Exclusions(pathlib.Path(__file__).with_name("excluded.txt"))
    one = Judge(name, shell, args.folder.resolve(), cluster.uri)
    lines, times, reasons = [], [], {}
    passed = failed = 0
    for case in cases:
        begun = time.monotonic()
        wrong, said = one.run(case)
        times.append((time.monotonic() - begun, case))
        wrong += ["no panic" for *_, output, _ in said if PANIC.search(output)][:1]
        reason = exclusions.reason(name, case)
        if reason and "no panic" not in wrong:
            reasons[reason] = reasons.get(reason, 0) + 1
        elif wrong:
            failed += 1
            lines += [f"FAIL {case}", *tell(wrong, said)]
        else:
            passed += 1
        if args.verbose:
            lines += [f"{case}{f' (skipped: {reason})' if reason else ''}", *tell(wrong, said)]
    lines += [f"skip {count} cases: {reason}" for reason, count in reasons.items()]
    lines += [f"{seconds:.1f} s: {case}" for seconds, case in sorted(times, key=lambda t: -t[0])[:SLOWEST_SHOWN]]
    return lines, (passed, failed, sum(reasons.values()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shell", choices=["shell", "mobula"], action="append", help="only this one")
    parser.add_argument("--verbose", action="store_true", help="tell all that was said")
    parser.add_argument("binary")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("class_path")
    parser.add_argument("wanted", nargs="*", help="parts of descriptions")
    args = parser.parse_intermixed_args()
    cases = [case for case in cases_of(args.folder) if not args.wanted or any(part in str(case) for part in args.wanted)]

    def run(name):
        cluster = Cluster(args.binary)
        shell = MobulaFs(args.binary, cluster.uri) if name == "mobula" else \
            ApacheShell(args.class_path, args.folder / "shell.log")
        try:
            return judge(name, shell, cluster, cases, args)
        finally:
            shell.end()
            cluster.end()

    names = args.shell or ["shell", "mobula"]
    totals = [0, 0, 0]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for name, (lines, counts) in zip(names, pool.map(run, names)):
            print(f"{'mobula fs' if name == 'mobula' else 'Apache’s shell'}:", *lines, sep="\n")
            print("%d passed, %d failed, %d skipped" % counts, flush=True)
            totals = [total + count for total, count in zip(totals, counts)]
    print("%d passed, %d failed, %d skipped" % tuple(totals))
    sys.exit(0 if totals[1] == 0 and totals[0] > 0 else 1)


if __name__ == "__main__":
    main()
