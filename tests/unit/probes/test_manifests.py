"""Runtime manifests: strict to read, enough to add a runtime."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotrace.probes import ManifestError, Manifests

FALLBACK = """
name = "any"
display = "anything"
language = "generic"
links = []
why = "nothing is known"
[recognise]
anything = true
"""

LUA = """
name = "lua"
display = "Lua"
language = "lua"
links = ["thread"]
why = "one thread"
[recognise]
executables = ["lua5.*"]
libraries = ["liblua*.so*"]
[interpreter]
code_options = ["-e"]
suffixes = [".lua"]
"""


def load(folder: Path, **files: str) -> Manifests:
    for name, text in {"any": FALLBACK, **files}.items():
        (folder / f"{name}.toml").write_text(text)
    return Manifests.load(folder)


def match(manifests: Manifests, executable: str, libraries: tuple[str, ...] = (), go: bool = False) -> str:
    return manifests.match(executable, lambda: libraries, lambda: go).manifest.name


@pytest.mark.parametrize(
    ("executable", "libraries", "go", "runtime"),
    [
        ("/usr/sbin/nginx", (), False, "nginx"),
        ("/usr/sbin/haproxy", (), False, "haproxy"),
        ("/usr/bin/python3.11", (), False, "python"),
        ("/usr/bin/uwsgi-core", ("/usr/lib/libpython3.11.so.1.0",), False, "python"),
        ("/usr/bin/node", (), False, "node"),
        ("/usr/lib/jvm/java-17/bin/java", (), False, "java"),
        ("/opt/app/launcher", ("/usr/lib/jvm/lib/server/libjvm.so",), False, "java"),
        ("/usr/bin/ruby3.1", (), False, "ruby"),
        ("/usr/sbin/php-fpm8.2", (), False, "php"),
        ("/usr/sbin/apache2", ("/usr/lib/apache2/modules/libphp8.2.so",), False, "apache"),
        ("/usr/bin/dotnet", (), False, "dotnet"),
        ("/usr/lib/erlang/bin/beam.smp", (), False, "beam"),
        ("/opt/shop/server", (), True, "go"),
        ("/opt/shop/server", ("/usr/lib/libc.so.6",), False, "native"),
    ],
)
def test_the_runtimes_that_come_with_autotrace(
    executable: str, libraries: tuple[str, ...], go: bool, runtime: str
) -> None:
    assert match(Manifests.load(), executable, libraries, go) == runtime


def test_the_links_that_each_way_of_working_makes_sound() -> None:
    links = {manifest.name: manifest.links for manifest in Manifests.load()}
    assert links["nginx"] == ("thread", "dispatch")
    assert links["beam"] == links["dotnet"] == ()
    assert links["go"] == ("goroutine",)
    assert links["java"] == links["native"] == links["haproxy"] == ("thread",)
    assert links["python"] == ("thread", "stream-thread", "answer")
    assert links["node"] == ("thread", "stream-loop", "stream-dispatch")
    assert [manifest.name for manifest in Manifests.load() if manifest.goid] == ["go"]


def test_a_process_is_read_only_as_far_as_needed() -> None:
    def fail() -> bool:
        raise AssertionError("the name was enough")

    assert Manifests.load().match("/usr/sbin/nginx", lambda: [str(fail())], fail).manifest.name == "nginx"


def test_the_reason_is_given() -> None:
    manifests = Manifests.load()
    assert "python3.11" in manifests.match("/usr/bin/python3.11", list, bool).reason
    by_library = manifests.match("/usr/bin/uwsgi", lambda: ["/usr/lib/libpython3.11.so.1.0"], bool)
    assert "libpython3.11.so.1.0" in by_library.reason
    assert not by_library.by_name


def test_a_new_runtime_is_one_file(tmp_path: Path) -> None:
    before = load(tmp_path)
    assert match(before, "/usr/bin/lua5.4") == "any"
    after = load(tmp_path, lua=LUA)
    assert match(after, "/usr/bin/lua5.4") == "lua"
    assert match(after, "/opt/kong", ("/usr/lib/liblua5.1.so.0",)) == "lua"
    interpreter = after["lua"].interpreter
    assert interpreter is not None
    assert interpreter.suffixes == (".lua",)
    with pytest.raises(KeyError):
        after["absent"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("name =", "nome ="), "name is missing"),
        (("why =", "extra = 1\nwhy ="), "extra is not a key"),
        (("libraries =", "librarys ="), "recognise.librarys is not a key"),
        (("code_options =", "code_option ="), "interpreter.code_option is not a key"),
        (('links = ["thread"]', 'links = ["magic"]'), "links has 'magic'"),
        (('links = ["thread"]', 'links = "thread"'), "links must be a list"),
        (('links = ["thread"]', ""), "links is missing"),
        (('why = "one thread"', 'why = ""'), "why must be a text"),
        (('why = "one thread"', 'why = "x"\ngoid = "yes"'), "goid must be true or false"),
        (("[recognise]", "[recognize]"), "recognise is missing"),
        (('executables = ["lua5.*"]\nlibraries = ["liblua*.so*"]', ""), "recognise.executables or another"),
        (('suffixes = [".lua"]', 'titles = ["(["]'), "interpreter.titles has"),
        (('suffixes = [".lua"]', 'titles = ["lua"]'), "exactly one group"),
        (
            ('suffixes = [".lua"]', 'launchers = [{script = ["x"]}]'),
            "interpreter.launchers.scripts is missing",
        ),
        (('suffixes = [".lua"]', "launchers = [1]"), "interpreter.launchers must be a table"),
        (("[interpreter]", "[interpreter"), "is not TOML"),
    ],
)
def test_a_wrong_manifest_is_named(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    with pytest.raises(ManifestError) as error:
        load(tmp_path, lua=LUA.replace(*change))
    assert str(error.value).startswith("lua.toml")
    assert problem in str(error.value)


def test_names_are_unique_and_one_manifest_takes_the_rest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="'any'"):
        load(tmp_path, again=FALLBACK)
    (tmp_path / "again.toml").unlink()
    (tmp_path / "any.toml").unlink()
    (tmp_path / "lua.toml").write_text(LUA)
    with pytest.raises(ManifestError, match="anything"):
        Manifests.load(tmp_path)


@given(st.binary(max_size=120))
def test_noise_gives_the_one_error(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    file = tmp_path_factory.mktemp("noise") / "noise.toml"
    file.write_bytes(noise)
    with pytest.raises(ManifestError):
        Manifests.load(file.parent)
