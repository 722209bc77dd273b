#!/usr/bin/env python3
"""Compares the hashes of tasks after random edits of a layer: those of the resident BitBake, which
had parsed the layer before the edit, with those of a BitBake that parses it cold.

usage: edits.py CHECKOUT COUNT SEED

PYTHONPATH names the directory of the toolchain, and BITBAKE_HOME an empty directory in one that is
empty otherwise.
"""

import locale
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import project as projects
import resident
import workspace

LAYER = Path(__file__).parents[2] / "scripts/demo-layer"
RECIPES = 12
ARGUMENTS = ["--dry-run", "--continue"]
RESIDENT_SECONDS_MAX = 300
# The class writes the hash of each task as it starts or is skipped.
HASHES_CLASS = """
addhandler hashes
hashes[eventmask] = "bb.runqueue.runQueueTaskStarted bb.runqueue.runQueueTaskSkipped"
python hashes() {
    with open(d.getVar("TOPDIR") + "/hashes", "a") as file:
        file.write(f"{e.taskid} {e.taskhash}\\n")
}
"""
SKIP = 'python () {\n    raise bb.parse.SkipRecipe("not now")\n}\n'


class Layer:
    """A layer with recipes that depend on each other, on classes, on includes and on a module."""

    def __init__(self, directory):
        self.directory = directory
        shutil.copytree(LAYER, directory)
        self.write("classes/hashes.bbclass", HASHES_CLASS)
        self.write("classes/chosen.bbclass", appended("CHOSEN", "do_compile"))
        self.write("recipes/common.inc", appended("SHARED", "do_install"))
        self.write("recipes/skipped.inc", SKIP)
        self.write("lib/words/__init__.py", 'BBIMPORTS = ["text"]\n')
        self.write("lib/words/text.py", 'def word():\n    return "a"\n')
        self.write("recipes/skipped/skipped_1.0.bb", 'SUMMARY = "1"\nrequire ../skipped.inc\n')
        with open(directory / "conf/layer.conf", "a", encoding="utf-8") as file:
            file.write('BBFILES += "${LAYERDIR}/recipes/*/*.bbappend"\n')
            file.write("addpylib ${LAYERDIR}/lib words\n")
        for number in range(RECIPES):
            self.add_recipe(f"r{number}", f"r{number - 1}" if number % 4 else "")

    def add_recipe(self, name, dependency=""):
        text = f'SUMMARY = "1"\nSRC_URI = "file://a.c file://Makefile"\nDEPENDS = "{dependency}"\n'
        text += "inherit chosen\n" if len(name) % 2 else "require ../common.inc\n"
        text += 'WORD = "${@words.text.word()}"\ndo_unpack[vardeps] += "SUMMARY WORD"\n'
        self.write(f"recipes/{name}/{name}_1.0.bb", text)
        self.write(f"recipes/{name}/files/a.c", "int a;\n")
        self.write(f"recipes/{name}/files/Makefile", "all:\n\ninstall:\n\n")

    def write(self, path, text):
        (self.directory / path).parent.mkdir(parents=True, exist_ok=True)
        (self.directory / path).write_text(text, encoding="utf-8")

    def paths(self, pattern):
        return sorted(self.directory.glob(pattern))

    def archive(self, file):
        options = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0"]
        where = ["-C", self.directory.parent, "-cf", file, self.directory.name]
        subprocess.run(["tar", *options, *where], check=True)


class Editor:
    """A source of random edits, each of which returns its description."""

    def __init__(self, layer, seed):
        self.layer = layer
        self.random = random.Random(seed)
        self.count = 0

    def edit(self):
        """Makes one to three edits."""
        kinds = [
            *[self.change_source, self.change_recipe] * 3,
            *[self.change_class, self.change_include, self.add_recipe, self.delete_recipe] * 2,
            *[self.append, self.change_mode, self.shadow_source, self.change_skipped] * 2,
            *[self.change_base_class, self.change_configuration, self.change_module],
        ]
        return ", ".join(self.random.choice(kinds)() for _ in range(self.random.randint(1, 3)))

    def change_source(self):
        return self._add_line("recipes/*/files/a.c", "int b{};")

    def change_recipe(self):
        return self._add_line("recipes/r*/*.bb", 'SUMMARY = "{}"')

    def change_class(self):
        return self._add_line("classes/chosen.bbclass", 'CHOSEN = "{}"')

    def change_include(self):
        return self._add_line("recipes/common.inc", 'SHARED = "{}"')

    def change_base_class(self):
        return self._add_line("classes/base.bbclass", 'do_fetch[vardeps] += "BASE{}"')

    def change_configuration(self):
        return self._add_line("conf/bitbake.conf", 'export CFLAGS = "-O2 -DX={}"')

    def change_module(self):
        self.count += 1
        self.layer.write("lib/words/text.py", f'def word():\n    return "w{self.count}"\n')
        return "changed lib/words/text.py"

    def add_recipe(self):
        self.count += 1
        name = f"r{RECIPES + self.count}"
        self.layer.add_recipe(name)
        return f"added {name}"

    def delete_recipe(self):
        directories = [it for it in self.layer.paths("recipes/r*") if it.is_dir()]
        added = [it for it in directories if int(it.name[1:]) > RECIPES]
        if not added:
            return self.add_recipe()
        chosen = self.random.choice(added)
        shutil.rmtree(chosen)
        return f"deleted {chosen.name}"

    def append(self):
        recipe = self.random.choice(self.layer.paths("recipes/r*/*.bb"))
        path = recipe.with_suffix(".bbappend")
        if path.exists() and self.random.random() < 0.5:
            path.unlink()
            return f"deleted {path.name}"
        self.count += 1
        path.write_text(f'SUMMARY = "append {self.count}"\n', encoding="utf-8")
        return f"wrote {path.name}"

    def change_mode(self):
        path = self.random.choice(self.layer.paths("recipes/*/files/Makefile"))
        path.chmod(path.stat().st_mode ^ 0o111)
        return f"changed the mode of {path.parent.parent.name}/Makefile"

    def shadow_source(self):
        """Adds or deletes a file whose name a recipe looks for."""
        path = self.random.choice(self.layer.paths("recipes/r*/files/Makefile"))
        if self.random.random() < 0.5:
            return self._add_line(path.relative_to(self.layer.directory), "# {}")
        self.count += 1
        path.with_name(f"new{self.count}.c").write_text("", encoding="utf-8")
        return f"added {path.parent.parent.name}/new{self.count}.c"

    def change_skipped(self):
        """Changes an include that only a recipe depends on which is skipped, or no longer is."""
        self.count += 1
        path = self.layer.directory / "recipes/skipped.inc"
        skipped = SKIP in path.read_text(encoding="utf-8")
        text = f'SUMMARY = "{self.count}"\n'
        path.write_text(text if skipped else text + SKIP, encoding="utf-8")
        return "skipped no longer" if skipped else "skipped"

    def _add_line(self, pattern, line):
        self.count += 1
        path = self.random.choice(self.layer.paths(str(pattern)))
        with open(path, "a", encoding="utf-8") as file:
            file.write(line.format(self.count) + "\n")
        return f"changed {path.relative_to(self.layer.directory)}"


class Comparison:
    """The layer, its archive beside that of BitBake, and the workspace."""

    def __init__(self, checkout, directory, seed):
        self.archives = directory / "archives"
        self.archives.mkdir()
        names = [".", ":(exclude)lib/toaster", ":(exclude)doc"]
        bitbake = ["git", "-C", checkout, "archive", "--prefix=bitbake/", "-o"]
        subprocess.run([*bitbake, self.archives / "repo-bitbake.tar", "HEAD", *names], check=True)
        self.layer = Layer(directory / "layer")
        self.editor = Editor(self.layer, seed)
        self.aside = directory / "aside"

    def project(self):
        """Archives the layer. Returns the project, whose targets are all recipes."""
        self.layer.archive(self.archives / "repo-layer.tar")
        names = [path.name for path in self.layer.paths("recipes/*") if path.is_dir()]
        if SKIP in (self.layer.directory / "recipes/skipped.inc").read_text():
            names.remove("skipped")
        repositories = [{"name": it, "archive": f"repo-{it}.tar"} for it in ("bitbake", "layer")]
        return projects.parse(
            {
                "version": 1,
                "targets": names,
                "local_conf": ['INHERIT += "hashes"'],
                "repositories": repositories,
                "bitbake": {"repository": "bitbake"},
                "layers": [{"repository": "layer"}],
            }
        )

    def preload(self):
        """Parses the layer as the bootstrap does, and starts the resident BitBake."""
        project = self.project()
        output = []
        changes = workspace.prepare(project, self.archives, projects.Host())
        status, _, _ = workspace.run(project, changes, ["--parse-only"], output.append)
        resident.end_server(workspace.BUILD)
        expect(status == 0, f"the layer cannot be parsed: {''.join(output)}")
        process = workspace.start_resident(project)
        deadline = time.monotonic() + RESIDENT_SECONDS_MAX
        while not workspace.RESIDENT.exists():
            expect(process.poll() is None, workspace.RESIDENT_LOG.read_text())
            expect(time.monotonic() < deadline, "the resident BitBake does not become ready")
            time.sleep(0.05)

    def compare(self):
        """Edits the layer. Returns the description of the edit and of the resident BitBake's use."""
        self.preload()
        description = self.editor.edit()
        project = self.project()
        warm, output = self.hashes(project)
        use = next(it for it in output if it.startswith("build: BitBake")).strip()
        workspace.HOME.rename(self.aside)
        workspace.HOME.mkdir()
        cold, cold_output = self.hashes(project)
        shutil.rmtree(workspace.HOME)
        self.aside.rename(workspace.HOME)
        differing = {task for task in warm.keys() | cold.keys() if warm.get(task) != cold.get(task)}
        parsed = next((it.strip() for it in output if it.startswith("Parsing of")), "no parse")
        details = "".join([it for it in output + cold_output if "ERROR" in it or "WARN" in it])
        expect(cold, f"{description}: no task runs\n{details}")
        expect(not differing, f"{description}: {use}\n{sorted(differing)} differ\n{details}")
        return f"{len(cold)} tasks are the same. {description}. {use}. {parsed}"

    def hashes(self, project):
        """Returns the hashes of all tasks, and the output of BitBake."""
        (workspace.BUILD / "hashes").unlink(missing_ok=True)
        output = []
        changes = workspace.prepare(project, self.archives, projects.Host())
        workspace.run(project, changes, [*ARGUMENTS, *project.targets], output.append)
        resident.end_server(workspace.BUILD)
        try:
            lines = (workspace.BUILD / "hashes").read_text().splitlines()
        except FileNotFoundError:
            lines = []
        found = dict(line.rsplit(" ", 1) for line in lines)
        # The hash of a task without a stamp is random.
        return {task: it for task, it in found.items() if not task.endswith(":do_build")}, output


def appended(variable, task):
    """Returns the text of a file that sets a variable and appends its use to a task."""
    return f'{variable} = "1"\n{task}:append() {{\n    echo ${{{variable}}}\n}}\n'


def provide_locale(directory):
    """Restarts this program with the locale that BitBake needs, if the machine lacks it."""
    try:
        locale.setlocale(locale.LC_ALL, "en_US.UTF-8")
        return
    except locale.Error:
        expect(not directory.exists(), "the locale en_US.UTF-8 cannot be provided")
    directory.mkdir()
    name = directory / "en_US.UTF-8"
    subprocess.run(["localedef", "-i", "en_US", "-f", "UTF-8", name], check=True)
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = 'mount --bind "$0" /usr/lib/locale && exec "$@"'
    program = ["sh", "-c", script, directory, sys.executable, "-B", *sys.argv]
    os.execvp("unshare", ["unshare", "--mount", *rights, *program])


def expect(condition, message):
    if not condition:
        sys.exit(message)


def main(checkout, count, seed):
    provide_locale(workspace.HOME.parent / "locales")
    comparison = Comparison(checkout, workspace.HOME.parent, int(seed))
    uses = {True: 0, False: 0}
    for number in range(int(count)):
        result = comparison.compare()
        uses["has parsed" in result] += 1
        print(f"{number + 1}: {result}", flush=True)
    print(f"the resident BitBake built {uses[True]} times, and a new one {uses[False]} times")


main(*sys.argv[1:])
