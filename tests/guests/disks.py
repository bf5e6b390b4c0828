"""Disks with a boot loader, made without mounting anything: GRUB's menu."""
import os
import shutil

from store import HERE, SECTOR, guest, make, partition_table, read, run, to_qcow2, write

PARTITION_START = 2048  # sectors: the place everyone expects, with room for a boot loader in front
GRUB_LIBRARY = "/usr/lib/grub/i386-pc"
GRUB_MODULES = """biosdisk part_msdos ext2 normal configfile minicmd echo sleep test terminal serial font gfxterm
                  all_video vbe vga video multiboot halt reboot acpi""".split()


def file_system(tree, raw, size, options=()):
    """Makes the raw disk `raw` of `size` bytes, its one ext4 partition filled from `tree`."""
    write(raw, b"")
    os.truncate(raw, size)
    blocks = (size - PARTITION_START * SECTOR) // 4096
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", tree, "-L", "whistler",
        "-U", "57484953-544c-4552-0000-000000000001", "-E",
        f"offset={PARTITION_START * SECTOR},hash_seed=57484953-544c-4552-0000-000000000002,lazy_itable_init=0",
        *options, raw, str(blocks))


def write_at(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def install_grub(raw, size, work):
    """Puts GRUB's boot sector at the start of the disk and its core right behind; both find each other by position."""
    core = os.path.join(work, "core.img")
    run("grub-mkimage", "-O", "i386-pc", "-d", GRUB_LIBRARY, "-p", "(hd0,msdos1)/boot/grub", "-o", core, *GRUB_MODULES)
    code = read(core)
    if len(code) > (PARTITION_START - 1) * SECTOR:
        raise ValueError("GRUB's core does not fit before the partition")
    write_at(raw, 0, read(os.path.join(GRUB_LIBRARY, "boot.img"))[:440])
    write_at(raw, 446, partition_table(PARTITION_START, size // SECTOR - PARTITION_START))
    write_at(raw, SECTOR, code)


@guest("grub.qcow2", ["grub/grub.cfg", "multiboot/multiboot.asm"],
       ["grub-pc-bin", "grub-common", "e2fsprogs", "qemu-utils"])
def grub_disk(target):
    """GRUB from a disk with a graphics menu in VBE modes, and multiboot.elf to start from it."""
    work = os.path.dirname(target)
    tree = target + ".tree"
    folder = os.path.join(tree, "boot", "grub")
    os.makedirs(folder)
    shutil.copy(os.path.join(HERE, "grub", "grub.cfg"), folder)
    shutil.copy("/usr/share/grub/ascii.pf2", folder)
    shutil.copy(make("multiboot.elf"), os.path.join(tree, "boot"))
    raw = target + ".raw"
    size = 32 << 20
    file_system(tree, raw, size)
    install_grub(raw, size, work)
    to_qcow2(raw, target)
