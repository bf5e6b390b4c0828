"""A small Debian 12 (i386) on a disk, with a 32-bit and a 64-bit kernel, started by EXTLINUX.

The tree comes from debootstrap once, and is kept; the disk is made from it offline. Both kernels share it: the 64-bit
one runs the 32-bit programs. Names to type at the boot prompt (serial port or keyboard): `686` (default), `amd64`.

In the guest: root is logged in on the first serial port, and can log in with password "whistler" on the screen.
`fill-disk MEGABYTES` writes files with fsync to /srv and their checksums to /srv/SHA256SUMS.
"""
import glob
import os
import shutil
import subprocess
import sys

from disks import PARTITION_START, file_system, write_at
from programs_i386 import programs_i386
from store import CACHE, HERE, SECTOR, BuildError, guest, locked, partition_table, read, run, scratch, to_qcow2, write

SUITE = "bookworm"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
PACKAGES = "systemd-sysv,udev,kmod,initramfs-tools,linux-image-686,acpid"
DISK_SIZE = 2 << 30
KEEP_DRIVERS = ("acpi", "ata", "block", "cdrom", "char", "hid", "hwmon", "i2c", "input", "md", "net/ethernet/realtek",
                "net/ethernet/intel/e1000", "net/mii.ko", "net/virtio_net.ko", "net/net_failover.ko", "parport", "rtc",
                "scsi", "usb/core", "usb/common", "usb/host", "usb/storage", "virtio", "watchdog")
SYSLINUX_CFG = """\
SERIAL 0 115200
PROMPT 1
TIMEOUT 30
DEFAULT 686
LABEL 686
  KERNEL /boot/vmlinuz-686
  INITRD /boot/initrd-686
  APPEND {common}
LABEL amd64
  KERNEL /boot/vmlinuz-amd64
  INITRD /boot/initrd-amd64
  APPEND {common}
"""
COMMON = "root=LABEL=whistler rw console=tty0 console=ttyS0,115200 quiet net.ifnames=0"
FILL_DISK = """\
#!/bin/sh
# fill-disk MEGABYTES: writes that much in 10 MB files, each made durable, and a list of their checksums.
set -e
cd /srv
rm -f data-* SHA256SUMS
i=0
while [ $i -lt $(($1 / 10)) ]; do
  dd if=/dev/urandom of=data-$i bs=1M count=10 conv=fsync status=none
  i=$((i + 1))
done
sha256sum data-* > SHA256SUMS
sync
echo "fill-disk: $i files written"
"""
AUTOLOGIN = """\
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --keep-baud 115200 %I vt220
"""
POWER_BUTTON = """\
event=button/power.*
action=/sbin/poweroff
"""


def fetch_tree():
    """The archive of the system debootstrap makes; downloaded once, until its list of packages changes."""
    archive = os.path.join(CACHE, "debian-i386-tree.tar")
    stamp = os.path.join(CACHE, ".debian-i386-tree.key")
    key = f"{SUITE} {PACKAGES}"
    with locked("debian-i386-tree"):
        if os.path.exists(archive) and os.path.exists(stamp) and read(stamp).decode() == key:
            return archive
        if os.geteuid() != 0:
            raise BuildError("debootstrap needs root")
        with scratch() as work:
            tree = os.path.join(work, "tree")
            with programs_i386():
                run("debootstrap", "--arch=i386", "--variant=minbase", f"--include={PACKAGES}", SUITE, tree, MIRROR)
            shutil.rmtree(os.path.join(tree, "var/cache/apt/archives"))
            shutil.rmtree(os.path.join(tree, "var/lib/apt/lists"))
            run("tar", "-cf", archive + ".new", "--numeric-owner", "-C", tree, ".")
        os.rename(archive + ".new", archive)
        write(stamp, key.encode())
    return archive


def amd64_kernel():
    """Directory of the 64-bit kernel package that the KVM lab has fetched."""
    lab = os.path.join(os.path.dirname(HERE), "lab", "lab")
    run(sys.executable, lab, "--fetch")
    cache = os.path.join(os.path.dirname(CACHE), "whistler-lab")
    return max(glob.glob(os.path.join(cache, "linux-image-*-amd64")), key=os.path.getmtime)


def trim(tree):
    """Leaves out what no test looks at: it only makes the disk large."""
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/zoneinfo"):
        shutil.rmtree(os.path.join(tree, folder), ignore_errors=True)
    for modules in glob.glob(os.path.join(tree, "usr/lib/modules/*/kernel")):
        shutil.rmtree(os.path.join(modules, "sound"), ignore_errors=True)
        drivers = os.path.join(modules, "drivers")
        for path in glob.glob(os.path.join(drivers, "**", "*.ko"), recursive=True):
            if not os.path.relpath(path, drivers).startswith(KEEP_DRIVERS):
                os.remove(path)


def install(tree, path, text, mode=0o644):
    path = os.path.join(tree, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write(path, text.encode())
    os.chmod(path, mode)


def configure(tree):
    install(tree, "etc/fstab", "LABEL=whistler / ext4 defaults 0 1\n")
    install(tree, "etc/hostname", "whistler-guest\n")
    install(tree, "etc/machine-id", "57484953544c45520000000000000001\n")
    install(tree, "etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf", AUTOLOGIN)
    install(tree, "etc/acpi/events/powerbtn", POWER_BUTTON)
    install(tree, "usr/local/sbin/fill-disk", FILL_DISK, 0o755)
    install(tree, "boot/extlinux/extlinux.conf", SYSLINUX_CFG.format(common=COMMON))
    install(tree, "etc/initramfs-tools/modules", "ata_piix\nsd_mod\next4\nvirtio_pci\nvirtio_blk\n")
    configuration = os.path.join(tree, "etc/initramfs-tools/initramfs.conf")
    text = read(configuration).decode().replace("MODULES=most", "MODULES=list")
    write(configuration, text.replace("COMPRESS=zstd", "COMPRESS=gzip").encode())
    run("chroot", tree, "chpasswd", input=b"root:whistler\n")
    for unit in ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer",
                 "e2scrub_all.timer", "e2scrub_reap.service", "systemd-pstore.service", "systemd-timesyncd.service"):
        run("chroot", tree, "systemctl", "mask", unit)
    run("chroot", tree, "systemctl", "enable", "serial-getty@ttyS0.service", "acpid.service")


def make_initrds(tree):
    """Gives both kernels short names and a small initial file system."""
    boot = os.path.join(tree, "boot")
    for modules in glob.glob(os.path.join(tree, "usr/lib/modules/*")):
        version = os.path.basename(modules)
        flavour = version.rpartition("-")[2]
        run("chroot", tree, "depmod", version)
        run("chroot", tree, "mkinitramfs", "-o", f"/boot/initrd-{flavour}", version)
        os.rename(os.path.join(boot, f"vmlinuz-{version}"), os.path.join(boot, f"vmlinuz-{flavour}"))
        for name in ("initrd.img", "System.map"):
            path = os.path.join(boot, f"{name}-{version}")
            if os.path.exists(path):
                os.remove(path)


def install_extlinux(raw, work):
    """EXTLINUX asks the mounted file system where its file lies; only for that the disk is mounted."""
    mount_point = os.path.join(work, "mount")
    os.makedirs(mount_point)
    device = run("losetup", "--find", "--show", "-o", str(PARTITION_START * SECTOR), raw).decode().strip()
    try:
        run("mount", "-t", "ext4", device, mount_point)
        try:
            shutil.copy("/usr/lib/syslinux/modules/bios/ldlinux.c32", os.path.join(mount_point, "boot/extlinux"))
            run("extlinux", "--install", os.path.join(mount_point, "boot/extlinux"))
        finally:
            run("umount", mount_point)
    finally:
        run("losetup", "-d", device)
    write_at(raw, 0, read("/usr/lib/syslinux/mbr/mbr.bin")[:440])
    write_at(raw, 446, partition_table(PARTITION_START, DISK_SIZE // SECTOR - PARTITION_START))


@guest("debian-i386.qcow2", ["disks.py", "programs_i386.py", "store.py"],
       ["debootstrap", "extlinux", "syslinux-common", "e2fsprogs", "qemu-utils"])
def debian(target):
    """Debian 12 on a qcow2 disk with a 32-bit and a 64-bit kernel, root logged in on the serial port."""
    work = os.path.dirname(target)
    tree = os.path.join(work, "tree")
    os.makedirs(tree)
    run("tar", "-xf", fetch_tree(), "-C", tree, "--numeric-owner")
    kernel = amd64_kernel()
    for name in ("vmlinuz-*", "config-*"):
        for file in glob.glob(os.path.join(kernel, "boot", name)):
            shutil.copy(file, os.path.join(tree, "boot"))
    for modules in glob.glob(os.path.join(kernel, "lib/modules/*")):
        shutil.copytree(modules, os.path.join(tree, "usr/lib/modules", os.path.basename(modules)), symlinks=True)
    trim(tree)
    with programs_i386():
        configure(tree)
        make_initrds(tree)
    raw = os.path.join(work, "disk.raw")
    # EXTLINUX 6.04 cannot read file systems with 64-bit block numbers.
    file_system(tree, raw, DISK_SIZE, ["-O", "^64bit,^metadata_csum"])
    install_extlinux(raw, work)
    to_qcow2(raw, target)
