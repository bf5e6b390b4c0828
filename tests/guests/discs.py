"""CDs: the Debian installer with ISOLINUX, GRUB with its graphics menu, memtest86+.

At the installer's boot prompt `install` (the default) stays in the VGA's text mode; `graphics` lets the kernel's driver
set a VBE mode; `serial` puts the dialogs on the first serial port.
"""
import os
import shutil

from store import HERE, guest, make, read, run, write

INSTALLER = "/usr/lib/debian-installer/images/12/{0}/text/debian-installer/{0}"
ISOLINUX_CFG = """\
SERIAL 0 115200
SAY Debian installer on Whistler
PROMPT 1
TIMEOUT 20
DEFAULT {default}
LABEL install
  KERNEL /linux
  INITRD /initrd.gz
  APPEND vga=normal fb=false nomodeset --- quiet
LABEL graphics
  KERNEL /linux
  INITRD /initrd.gz
  APPEND --- quiet
LABEL serial
  KERNEL /linux
  INITRD /initrd.gz
  APPEND vga=normal nomodeset console=ttyS0,115200 --- quiet
"""


def installer_cd(architecture, target, default="install"):
    source = INSTALLER.format(architecture)
    tree = target + ".tree"
    os.makedirs(os.path.join(tree, "isolinux"))
    shutil.copy("/usr/lib/ISOLINUX/isolinux.bin", os.path.join(tree, "isolinux"))
    shutil.copy("/usr/lib/syslinux/modules/bios/ldlinux.c32", os.path.join(tree, "isolinux"))
    write(os.path.join(tree, "isolinux", "isolinux.cfg"), ISOLINUX_CFG.format(default=default).encode())
    for name in ("linux", "initrd.gz"):
        shutil.copy(os.path.join(source, name), tree)
    run("xorriso", "-as", "mkisofs", "-quiet", "-V", "WHISTLER", "-J", "-R", "-b", "isolinux/isolinux.bin",
        "-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "-o", target, tree)


@guest("installer-i386.iso", [], ["debian-installer-12-netboot-i386", "isolinux", "syslinux-common", "xorriso"])
def installer_i386(target):
    """The Debian 12 installer, 32 bit, started by ISOLINUX, on the VGA text screen."""
    installer_cd("i386", target)


@guest("installer-i386-serial.iso", [],
       ["debian-installer-12-netboot-i386", "isolinux", "syslinux-common", "xorriso"])
def installer_i386_serial(target):
    """The same with its dialogs on the first serial port, which is easier to time."""
    installer_cd("i386", target, "serial")


@guest("installer-amd64.iso", [], ["debian-installer-12-netboot-amd64", "isolinux", "syslinux-common", "xorriso"])
def installer_amd64(target):
    """The Debian 12 installer, 64 bit, started by ISOLINUX, on the VGA text screen."""
    installer_cd("amd64", target)


@guest("grub.iso", ["grub/grub.cfg", "multiboot/multiboot.asm"],
       ["grub-pc-bin", "grub-common", "xorriso", "mtools"])
def grub_cd(target):
    """GRUB from a CD with a graphics menu in VBE modes, and multiboot.elf to start from it."""
    tree = target + ".tree"
    folder = os.path.join(tree, "boot", "grub")
    os.makedirs(folder)
    shutil.copy(os.path.join(HERE, "grub", "grub.cfg"), folder)
    shutil.copy("/usr/share/grub/ascii.pf2", folder)
    shutil.copy(make("multiboot.elf"), os.path.join(tree, "boot"))
    run("grub-mkrescue", "-d", "/usr/lib/grub/i386-pc", "--fonts=", "--locales=", "--themes=", "-o", target, tree)


@guest("memtest-i386.iso", [], ["memtest86+"])
def memtest(target):
    """memtest86+, 32 bit, as Debian packages it."""
    write(target, read("/usr/lib/memtest86+/memtest86+ia32.iso"))
