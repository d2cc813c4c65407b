"""A cartridge that is found without its server is listed, and restored to what was backed up; what cannot be is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from drivers.directory_store import DirectoryStore
from drivers.scsi.changer import Changer
from drivers.scsi.iscsi import IscsiTransport
from drivers.simulated.tape import Faults
from drivers.volume import DirectoryVolume
from drivers.world import RealWorld
from rbcore import errors
from rbcore.archive.model import BlockKind
from rbmedia.cli import run as run_command
from rbmedia.exits import CommandFailed, Exit
from rbmedia.tape_restore import CATALOG_NAME, RestoreOrder, restore
from rbmedia.tape_scan import Catalogue
from rbmedia.tape_workbench import open_bench
from tests.agent.daemon import KEYS
from tests.agent.trees import describe
from tests.tape.libraries import BARCODES, LibraryUnderTest, made_library, need_target, running_target
from tests.tape.ltfs_cases import labelled, made
from tests.tape.native_cases import fresh, put_back, put_in
from tests.tape.scan_cases import Client, Kept, Tool, make_tree, store_whole, write_native, write_spanned


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "source")


@pytest.fixture
def tool(library: LibraryUnderTest, capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(library, capsys)


class SimulatedTool(Tool):
    """With the bad luck of a simulated library."""

    faults: Faults


@pytest.fixture
async def simulated(capsys: pytest.CaptureFixture[str]) -> SimulatedTool:
    made = made_library()
    tool = SimulatedTool(LibraryUnderTest(made.changer, list(made.drives), BARCODES), capsys)
    tool.faults = made.faults
    return tool


async def test_a_cartridge_is_listed_and_restored(tool: Tool, client: Client, tree: Path, tmp_path: Path) -> None:
    archive = await client.backup(tree)
    library = tool.library
    await write_native(library, client, 0, [(archive, client.start(archive, tree))])
    before = await tool.inventory()

    code, listed = await tool.run(tags=[library.barcodes[0]])

    assert code == Exit.OK
    (cartridge,), (found,) = listed["cartridges"], listed["archives"]
    assert (cartridge["label"], cartridge["format"], cartridge["pool"], cartridge["server"]) == (
        library.barcodes[0],
        "native",
        "Tapes",
        "server-1",
    )
    assert (found["archive"], found["client"], found["resource"]) == (archive, "host.example", str(tree))
    assert (found["backup_type"], found["crypto"], found["date"]) == ("full", "nocrypt", "2023-11-14T22:13:20Z")
    assert found["whole"]
    assert [(part["part"], part["cartridge"], part["blocks"]) for part in found["parts"]] == [
        (1, library.barcodes[0], len(client.blocks(archive)))
    ]
    assert await tool.inventory() == before, "the cartridge is back where it was"

    code, restored = await tool.run(tags=[library.barcodes[0]], restore=archive, to=tmp_path / "target")

    assert (code, restored["outcome"], restored["problems"]) == (Exit.OK, "done", 0), restored
    assert describe(tmp_path / "target") == describe(tree)
    assert await tool.inventory() == before


async def test_all_cartridges_are_read_but_cleaning_ones(tool: Tool, client: Client, tree: Path) -> None:
    archive = await client.backup(tree)
    await write_native(tool.library, client, 1, [(archive, client.start(archive, tree))])

    code, listed = await tool.run(full=True)

    assert code == Exit.OK
    assert [one["bar_code"] for one in listed["cartridges"]] == tool.library.barcodes
    assert [one["format"] for one in listed["cartridges"]].count("blank") == len(tool.library.barcodes) - 1
    assert [one["whole"] for one in listed["archives"]] == [True]


async def test_an_archive_on_two_cartridges_needs_one_drive(
    tool: Tool, client: Client, tree: Path, tmp_path: Path
) -> None:
    archive = await client.backup(tree)
    await write_spanned(tool.library, client, archive, tree, first_part_blocks=2)
    tags = tool.library.barcodes[:2]

    code, listed = await tool.run(tags=tags)

    assert code == Exit.OK
    (found,) = listed["archives"]
    assert found["whole"], found
    assert [part["cartridge"] for part in found["parts"]] == tags
    before, moves = await tool.inventory(), tool.changer.moves

    code, restored = await tool.run(tags=tags, restore=archive, to=tmp_path / "target")

    assert (code, restored["problems"]) == (Exit.OK, 0), restored
    assert describe(tmp_path / "target") == describe(tree)
    assert await tool.inventory() == before
    assert tool.changer.moves - moves <= 12, "scan, names, contents: each cartridge comes thrice, and goes"


async def test_a_missing_part_is_named(simulated: SimulatedTool, client: Client, tree: Path, tmp_path: Path) -> None:
    archive = await client.backup(tree)
    await write_spanned(simulated.library, client, archive, tree, first_part_blocks=2)
    first, second = BARCODES[:2]

    code, listed = await simulated.run(tags=[first])

    assert code == Exit.OK
    (found,) = listed["archives"]
    assert not found["whole"]
    assert (found["problems"], found["wanted_cartridges"]) == ([f"part 2 was not found: it is on {second}"], [second])
    with pytest.raises(errors.NotFound, match=second):
        await simulated.run(tags=[first], restore=archive, to=tmp_path / "target")
    with pytest.raises(errors.Damaged, match=f"trailer block.*{second}"):
        await simulated.run(tags=[first], restore=archive, to=tmp_path / "target", partly=True)
    assert not (tmp_path / "target").exists()

    code, restored = await simulated.run(tags=[second], restore=archive, to=tmp_path / "target", partly=True)

    assert code == Exit.DAMAGE
    assert restored["problems"] > 0
    assert (tmp_path / "target" / "deep" / "er" / "last").exists()


async def test_a_damaged_record_costs_its_files_and_no_others(
    simulated: SimulatedTool, client: Client, tree: Path, tmp_path: Path
) -> None:
    archive = await client.backup(tree)
    await write_native(simulated.library, client, 0, [(archive, client.start(archive, tree))])
    # VOL1, label, filemark, archive header; so the second container.
    simulated.faults.spoil_record(BARCODES[0], 5)

    code, listed = await simulated.run(tags=BARCODES[:1])
    assert code == Exit.OK, "a quick look passes over it"
    code, listed = await simulated.run(tags=BARCODES[:1], full=True)
    assert code == Exit.DAMAGE
    assert any("object 5:" in problem for problem in listed["cartridges"][0]["problems"])

    code, restored = await simulated.run(tags=BARCODES[:1], restore=archive, to=tmp_path / "target")

    assert (code, restored["outcome"]) == (Exit.DAMAGE, "error")
    assert all(BARCODES[0] in line and archive in line for line in restored["damage"])
    assert restored["damage"]
    named = {line.split(":")[0] for line in restored["lines"]}
    was, now = describe(tree), describe(tmp_path / "target")
    assert {path.decode() for path in was if now.get(path) != was[path]} <= named
    assert len(named) < len(was)


async def test_an_encrypted_archive_needs_its_keys(
    simulated: SimulatedTool, client: Client, tree: Path, tmp_path: Path
) -> None:
    archive = await client.backup(tree, crypto="AES-256-GCM")
    await write_native(simulated.library, client, 0, [(archive, client.start(archive, tree, "AES-256-GCM"))])
    target, keys, others = tmp_path / "target", tmp_path / "keys", tmp_path / "others"
    keys.mkdir()
    others.mkdir()
    (keys / "master-key").write_bytes(KEYS.master_key)
    (others / "master-key").write_bytes(bytes(32))

    code, listed = await simulated.run(tags=BARCODES[:1])
    assert (code, listed["archives"][0]["crypto"]) == (Exit.OK, "AES-256-GCM")
    with pytest.raises(errors.Refused, match=r"encrypted.*host\.example.*--keys"):
        await simulated.run(tags=BARCODES[:1], restore=archive, to=target)
    with pytest.raises(errors.Refused, match=r"cannot be opened with the key in .*others"):
        await simulated.run(tags=BARCODES[:1], restore=archive, to=target, keys=others)
    with pytest.raises(errors.NotFound, match="master-key"):
        await simulated.run(tags=BARCODES[:1], restore=archive, to=target, keys=tmp_path)
    assert not target.exists()

    code, _ = await simulated.run(tags=BARCODES[:1], restore=archive, to=target, keys=keys)

    assert code == Exit.OK
    assert describe(target) == describe(tree)


async def test_a_chain_is_restored_from_where_its_archives_are(
    simulated: SimulatedTool, client: Client, tree: Path, tmp_path: Path
) -> None:
    full = await client.backup(tree)
    (tree / "deep" / "file003").write_text("changed")
    (tree / "new").write_text("new")
    increment = await client.backup(tree, parent=full)
    await write_native(simulated.library, client, 0, [(full, client.start(full, tree))])
    start = client.start(increment, tree, kind="incremental")
    await write_native(simulated.library, client, 1, [(increment, start)])

    with pytest.raises(errors.NotFound, match=f"{increment} needs archive {full}"):
        await simulated.run(tags=BARCODES[1:2], restore=increment, to=tmp_path / "target")
    code, restored = await simulated.run(tags=BARCODES[:2], restore=increment, to=tmp_path / "target")
    assert (code, restored["problems"]) == (Exit.OK, 0), restored
    assert describe(tmp_path / "target") == describe(tree)

    code, _ = await simulated.run(
        tags=BARCODES[1:2], restore=increment, to=tmp_path / "some", only=["new", "deep/file003"], partly=True
    )
    assert code == Exit.OK, "what is asked for lies in the increment"
    assert (tmp_path / "some" / "deep" / "file003").read_text() == "changed"


async def test_two_drives_need_fewer_mounts(
    simulated: SimulatedTool, client: Client, tree: Path, tmp_path: Path
) -> None:
    archive = await client.backup(tree)
    await write_spanned(simulated.library, client, archive, tree, first_part_blocks=2)

    code, _ = await simulated.run(
        drives=["drive0", "drive1"], tags=BARCODES[:2], restore=archive, to=tmp_path / "target"
    )

    assert code == Exit.OK
    assert describe(tmp_path / "target") == describe(tree)
    assert simulated.changer.moves == 4, "each cartridge came once and went once"


async def test_an_archive_is_extracted_as_it_is(
    simulated: SimulatedTool, client: Client, tree: Path, tmp_path: Path
) -> None:
    archive = await client.backup(tree, crypto="ChaCha20-Poly1305")
    await write_native(simulated.library, client, 0, [(archive, client.start(archive, tree, "ChaCha20-Poly1305"))])

    code, extracted = await simulated.run(tags=BARCODES[:1], extract=archive, to=tmp_path / "catalog")

    assert (code, extracted["root_agrees"], extracted["damage"]) == (Exit.OK, True, [])
    store = DirectoryStore(DirectoryVolume(tmp_path / "catalog"), CATALOG_NAME)
    report = [one for one in store.verify(archive) if one is not None][-1]
    assert (report.root, report.findings) == (client.root(archive), [])
    reader = store.open_reader(archive)
    assert reader.read(list(client.stored(archive).blocks)) == b"".join(client.blocks(archive))
    reader.close()
    with pytest.raises(errors.NotAllowedNow, match="already"):
        await simulated.run(tags=BARCODES[:1], extract=archive, to=tmp_path / "catalog")


async def test_what_cannot_be_read_is_left_out_of_an_extract(
    simulated: SimulatedTool, client: Client, tree: Path, tmp_path: Path
) -> None:
    archive = await client.backup(tree)
    await write_native(simulated.library, client, 0, [(archive, client.start(archive, tree))])
    simulated.faults.spoil_record(BARCODES[0], 5)

    code, extracted = await simulated.run(tags=BARCODES[:1], extract=archive, to=tmp_path / "catalog")

    assert (code, extracted["root_agrees"]) == (Exit.DAMAGE, False)
    assert extracted["blocks"] + len(extracted["damage"]) == len(client.blocks(archive))


async def test_an_unfinished_archive_is_listed_as_such(simulated: SimulatedTool, client: Client, tree: Path) -> None:
    """The drive died amid it: no trailer, no index."""
    archive = await client.backup(tree)
    library = simulated.library
    drive = await put_in(library.changer, library.drives[0], 0)
    session = await fresh(drive, BARCODES[0])
    await session.begin_part(client.start(archive, tree))
    await session.write(client.blocks(archive)[:-2])
    await session.sync()
    await put_back(library.changer, drive, 0)

    code, listed = await simulated.run(tags=BARCODES[:1])

    (found,) = listed["archives"]
    assert code == Exit.OK, "nothing is damaged"
    assert found["problems"] == ["part 1 has no trailer: the archive was not finished"]
    assert found["parts"][0]["blocks"] == len(client.blocks(archive)) - 2


async def test_what_has_no_trailer_can_be_restored_all_the_same(
    simulated: SimulatedTool, client: Client, tree: Path, tmp_path: Path
) -> None:
    """All blocks arrived, and then the power failed."""
    archive = await client.backup(tree)
    library = simulated.library
    drive = await put_in(library.changer, library.drives[0], 0)
    session = await fresh(drive, BARCODES[0], record_bytes=65536)
    await session.begin_part(client.start(archive, tree))
    await session.write(client.blocks(archive))
    await session.sync()
    await put_back(library.changer, drive, 0)

    code, restored = await simulated.run(tags=BARCODES[:1], restore=archive, to=tmp_path / "target", partly=True)

    assert (code, restored["problems"]) == (Exit.OK, 0), restored
    assert describe(tmp_path / "target") == describe(tree)


async def test_a_lost_label_is_no_lost_cartridge(
    simulated: SimulatedTool, client: Client, tree: Path, tmp_path: Path
) -> None:
    archive = await client.backup(tree)
    await write_native(simulated.library, client, 0, [(archive, client.start(archive, tree))])
    simulated.faults.spoil_record(BARCODES[0], 1)

    code, listed = await simulated.run(tags=BARCODES[:1])
    assert (code, listed["archives"]) == (Exit.DAMAGE, [])
    assert "--full" in listed["cartridges"][0]["problems"][0]

    code, restored = await simulated.run(tags=BARCODES[:1], full=True, restore=archive, to=tmp_path / "target")
    assert (code, restored["problems"]) == (Exit.OK, 0), restored
    assert describe(tmp_path / "target") == describe(tree)


async def test_a_broken_cartridge_does_not_hide_the_others(
    simulated: SimulatedTool, client: Client, tree: Path
) -> None:
    archive = await client.backup(tree)
    await write_native(simulated.library, client, 1, [(archive, client.start(archive, tree))])
    simulated.faults.break_cartridge(BARCODES[0])
    before = await simulated.inventory()

    code, listed = await simulated.run()

    assert code == Exit.DAMAGE
    assert listed["cartridges"][0]["problems"]
    assert [one["archive"] for one in listed["archives"]] == [archive]
    assert await simulated.inventory() == before


async def test_a_damaged_manifest_block_is_asked_for_once(
    simulated: SimulatedTool, client: Client, tree: Path, tmp_path: Path
) -> None:
    """Its names are lost, and all that else is there is restored: every pass over the names must see the same."""
    for at in range(800):
        # So that the manifest is longer than a record, and the trailer stands in another one.
        (tree / f"{'a long name ' * 10}{at}").touch()
    archive = await client.backup(tree, compression="None")
    (number,) = client.stored(archive).numbers(BlockKind.MANIFEST)
    start = client.start(archive, tree)
    library = simulated.library
    drive = await put_in(library.changer, library.drives[0], 0)
    session = await fresh(drive, BARCODES[0], record_bytes=65536)
    await store_whole(session, client, archive, start)
    (_, place), reader = (await session.parts())[0], session.reader(start.archive, (await session.parts())[0][1])
    row = (await reader.index()).find(number)
    assert row is not None
    simulated.faults.spoil_record(BARCODES[0], place.position + row.container)
    await session.close()
    await put_back(library.changer, drive, 0)

    code, restored = await simulated.run(tags=BARCODES[:1], restore=archive, to=tmp_path / "target")

    assert (code, restored["outcome"]) == (Exit.DAMAGE, "error")
    assert len([line for line in restored["damage"] if f"block {number}," in line]) == 1
    assert any("the names in it are lost" in line for line in restored["lines"])


async def test_what_was_in_a_drive_is_there_afterwards(simulated: SimulatedTool, client: Client, tree: Path) -> None:
    archive = await client.backup(tree)
    await write_native(simulated.library, client, 0, [(archive, client.start(archive, tree))])
    await put_in(simulated.library.changer, simulated.library.drives[0], 1)
    before = await simulated.inventory()

    code, listed = await simulated.run()

    assert code == Exit.OK
    assert {one["bar_code"] for one in listed["cartridges"]} == set(BARCODES)
    assert len(listed["archives"]) == 1
    assert await simulated.inventory() == before


async def test_an_interrupted_command_puts_cartridges_back(simulated: SimulatedTool) -> None:
    before = await simulated.inventory()
    drives = [Kept(one, f"drive{at}") for at, one in enumerate(simulated.library.drives)]
    with trio.CancelScope() as scope:
        async with open_bench(drives, simulated.changer, say=lambda _: None, ask=None) as bench:
            for cartridge in await bench.cartridges(BARCODES[:2]):
                await bench.mount(cartridge)
            assert await simulated.inventory() != before
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert await simulated.inventory() == before


async def test_a_person_brings_what_is_missing(
    simulated: SimulatedTool, client: Client, tree: Path, tmp_path: Path
) -> None:
    """One drive, no changer; the first cartridge that is brought is the wrong one."""
    archive = await client.backup(tree)
    library = simulated.library
    await write_spanned(library, client, archive, tree, first_part_blocks=2)
    await put_in(library.changer, library.drives[0], 0)
    changer = Changer(library.changer)
    said: list[str] = []
    errands = iter([2, 1])
    inside = 0

    async def ask(text: str) -> None:
        nonlocal inside
        said.append(text)
        wanted = next(errands, 1 if BARCODES[1] in text else 0)
        await changer.move(256, await simulated.slot(inside))
        await changer.move(await simulated.slot(wanted), 256)
        inside = wanted

    drive = Kept(library.drives[0], "drive0")
    async with open_bench([drive], None, say=said.append, ask=ask) as bench:
        catalogue = Catalogue(bench, full=False)
        await catalogue.read(await bench.cartridges())
        order = RestoreOrder(archive=archive, destination=str(tmp_path / "target"))
        restored = await restore(catalogue, order, RealWorld())

    assert (restored.outcome, restored.problems) == ("done", 0), restored
    assert describe(tmp_path / "target") == describe(tree)
    assert said[1].startswith(f"Put cartridge {BARCODES[1]} into drive0")
    assert any("Nothing is written" in line for line in said)


async def test_without_a_terminal_nobody_is_asked(
    simulated: SimulatedTool, client: Client, tree: Path, tmp_path: Path
) -> None:
    archive = await client.backup(tree)
    await write_spanned(simulated.library, client, archive, tree, first_part_blocks=2)
    await put_in(simulated.library.changer, simulated.library.drives[0], 0)

    code, listed = await simulated.run(changer="")
    assert (code, listed["archives"][0]["wanted_cartridges"]) == (Exit.OK, [BARCODES[1]])
    with pytest.raises(errors.NotFound, match=BARCODES[1]):
        await simulated.run(changer="", restore=archive, to=tmp_path / "target")


async def test_ltfs_cartridges_are_listed_and_restored(
    client: Client, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = await client.backup(tree)
    library = made(*BARCODES[:2])
    tool = Tool(LibraryUnderTest(library.changer, list(library.drives), BARCODES[:2]), capsys)
    drive = await put_in(library.changer, library.drives[0], 0)
    session = await labelled(drive, BARCODES[0])
    await store_whole(session, client, archive, client.start(archive, tree))
    await session.close()
    await put_back(library.changer, drive, 0)

    code, listed = await tool.run(full=True)

    assert code == Exit.OK, listed
    assert listed["cartridges"][0]["format"] == "ltfs"
    (found,) = listed["archives"]
    assert (found["client"], found["resource"], found["whole"]) == ("host.example", str(tree), True)

    code, restored = await tool.run(restore=archive, to=tmp_path / "target")
    assert (code, restored["problems"]) == (Exit.OK, 0), restored
    assert describe(tmp_path / "target") == describe(tree)

    code, extracted = await tool.run(extract=archive, to=tmp_path / "catalog")
    assert (code, extracted["root_agrees"]) == (Exit.OK, True)

    # Label, filemark, label, filemark, filemark, index, filemark; so the first record of the part.
    library.faults.spoil_record(BARCODES[0], 7, 1)
    code, listed = await tool.run(full=True)
    assert code == Exit.DAMAGE
    assert not listed["archives"][0]["whole"]
    code, restored = await tool.run(restore=archive, to=tmp_path / "again")
    assert code == Exit.DAMAGE
    assert restored["damage"]


async def test_an_archive_on_two_ltfs_cartridges(
    client: Client, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = await client.backup(tree)
    library = made(*BARCODES[:2])
    tool = Tool(LibraryUnderTest(library.changer, list(library.drives), BARCODES[:2]), capsys)
    await write_spanned(tool.library, client, archive, tree, first_part_blocks=2, label=labelled)

    code, listed = await tool.run(tags=BARCODES[1:2])
    (found,) = listed["archives"]
    assert (code, found["wanted_cartridges"]) == (Exit.OK, [BARCODES[0]])

    code, restored = await tool.run(restore=archive, to=tmp_path / "target")
    assert (code, restored["problems"]) == (Exit.OK, 0), restored
    assert describe(tmp_path / "target") == describe(tree)


async def test_the_wrong_device_is_said(simulated: SimulatedTool) -> None:
    with pytest.raises(CommandFailed, match="--drive changer is not a tape drive, but a medium changer") as failure:
        await simulated.run(drives=["changer"], changer="")
    assert failure.value.code == Exit.USAGE
    with pytest.raises(CommandFailed, match="--changer drive1 is not a medium changer"):
        await simulated.run(changer="drive1")
    with pytest.raises(CommandFailed, match="has no cartridge XX0001L9") as failure:
        await simulated.run(tags=["XX0001L9"])
    assert failure.value.code == Exit.USAGE
    with pytest.raises(CommandFailed, match="--element is given once for each --drive"):
        await simulated.run(elements=[300])
    with pytest.raises(errors.NoCartridge):
        await simulated.run(changer="")


async def test_elements_may_be_said(simulated: SimulatedTool) -> None:
    code, listed = await simulated.run(drives=["drive1"], elements=[257], tags=BARCODES[:1])
    assert (code, len(listed["cartridges"])) == (Exit.OK, 1)
    with pytest.raises(errors.RbError):
        # The cartridge goes into drive 0, where nobody looks.
        await simulated.run(drives=["drive1"], elements=[256], tags=BARCODES[:1])


def test_the_command_on_a_real_target(
    client: Client, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need_target()

    with running_target(tmp_path / "library") as target:

        async def prepare() -> str:
            transports = [IscsiTransport(target.changer_url), IscsiTransport(target.drive_url(0))]
            tags = [f"VT{number + 1:04d}L9" for number in range(target.media)]
            library = LibraryUnderTest(transports[0], list(transports[1:]), tags)
            archive = await client.backup(tree)
            await write_spanned(library, client, archive, tree, first_part_blocks=2)
            for transport in transports:
                await transport.aclose()
            return archive

        archive = trio.run(prepare)
        capsys.readouterr()
        options = ["--drive", target.drive_url(0), "--changer", target.changer_url]

        assert run_command(["tape", "scan", *options]) == Exit.OK
        shown = capsys.readouterr().out
        assert archive in shown
        assert "1 on VT0001L9, 2 on VT0002L9" in shown

        where = str(tmp_path / "target")
        assert run_command(["tape", "scan", *options, "--restore", archive, "--to", where]) == Exit.OK
        assert describe(where) == describe(tree)

        assert run_command(["tape", "scan", "--drive", target.changer_url]) == Exit.USAGE
        assert "is not a tape drive" in capsys.readouterr().err
    assert run_command(["tape", "scan", *options]) == Exit.FAILED, "nobody answers any more"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "Missing option '--drive'"),
        (["--drive", "/dev/st0"], "no address of a SCSI device"),
        (["--drive", "iscsi://user%secret@host"], "is not an iSCSI address"),
        (["--drive", "/dev/sg0", "--slots", "A"], "belong to --changer"),
        (["--drive", "/dev/sg0", "--restore", "x", "--to", "."], "is no archive id"),
        (["--drive", "/dev/sg0", "--restore", "0" * 32], "--to says where"),
        (["--drive", "/dev/sg0", "--keys", "."], "belong to --restore"),
        (["--drive", "/dev/sg0", "--partial"], "--partial belongs"),
        (["--drive", "/dev/sg0", "--drive", "/dev/sg0"], "named twice"),
        (["--drive", "/dev/sg0", "--restore", "0" * 32, "--extract", "0" * 32, "--to", "."], "two things"),
    ],
)
def test_wrong_options(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["tape", "scan", *options]) == Exit.USAGE
    told = capsys.readouterr().err
    assert said in told
    assert "secret" not in told


def test_a_drive_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["tape", "scan", "--drive", "/dev/sg9999"]) == Exit.FAILED
    assert "/dev/sg9999" in capsys.readouterr().err
