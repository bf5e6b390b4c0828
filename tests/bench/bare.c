/* The least a program must ask of KVM to run a PC's first instructions: what is left when the VMM is taken away.
 *
 *   bare BIOS MEMORY_MIB
 *
 * Virtual machine, interrupt controllers, timer, memory, one processor with KVM's own CPUID; the BIOS image below 4 GiB
 * and below 1 MiB. Runs until the guest writes to port 0xF4 and returns (value << 1) | 1, as the debug exit port does.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXIT_PORT = 0xF4, MAX_CPUID_ENTRIES = 256, FAILED = 125 };

static int fail(const char* what) {
  perror(what);
  return FAILED;
}

static int add_memory(int vm, uint32_t slot, uint64_t guest, uint64_t size, void* host, uint32_t flags) {
  struct kvm_userspace_memory_region region = {
      .slot = slot, .flags = flags, .guest_phys_addr = guest, .memory_size = size, .userspace_addr = (uintptr_t)host};
  return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: bare BIOS MEMORY_MIB\n");
    return FAILED;
  }
  int bios_file = open(argv[1], O_RDONLY | O_CLOEXEC);
  struct stat bios_stat;
  if (bios_file < 0 || fstat(bios_file, &bios_stat) != 0) {
    return fail(argv[1]);
  }
  size_t bios_size = (size_t)bios_stat.st_size;
  size_t memory = strtoul(argv[2], NULL, 10) << 20;

  int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0 || ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
    return fail("/dev/kvm");
  }
  int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (vm < 0) {
    return fail("KVM_CREATE_VM");
  }
  uint64_t identity_map = 0xFEFFC000;
  struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
  if (ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) != 0 || ioctl(vm, KVM_SET_TSS_ADDR, 0xFEFFD000) != 0 ||
      ioctl(vm, KVM_CREATE_IRQCHIP, 0) != 0 || ioctl(vm, KVM_CREATE_PIT2, &pit) != 0) {
    return fail("KVM_CREATE_IRQCHIP or KVM_CREATE_PIT2");
  }
  char* ram = mmap(NULL, memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  char* bios = mmap(NULL, bios_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (ram == MAP_FAILED || bios == MAP_FAILED || read(bios_file, bios, bios_size) != (ssize_t)bios_size) {
    return fail("memory");
  }
  if (add_memory(vm, 0, 0, 0xF0000, ram, 0) != 0 ||
      add_memory(vm, 1, 0xF0000, 0x10000, bios + bios_size - 0x10000, 0) != 0 ||
      add_memory(vm, 2, 0x100000, memory - 0x100000, ram + 0x100000, 0) != 0 ||
      add_memory(vm, 3, 0x100000000 - bios_size, bios_size, bios, KVM_MEM_READONLY) != 0) {
    return fail("KVM_SET_USER_MEMORY_REGION");
  }
  int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
  int run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (vcpu < 0 || run_size < 0) {
    return fail("KVM_CREATE_VCPU");
  }
  struct kvm_run* run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  struct kvm_cpuid2* cpuid = calloc(1, sizeof *cpuid + MAX_CPUID_ENTRIES * sizeof cpuid->entries[0]);
  if (run == MAP_FAILED || cpuid == NULL) {
    return fail("KVM_GET_VCPU_MMAP_SIZE");
  }
  cpuid->nent = MAX_CPUID_ENTRIES;
  if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) != 0 || ioctl(vcpu, KVM_SET_CPUID2, cpuid) != 0) {
    return fail("KVM_SET_CPUID2");
  }
  for (;;) {
    if (ioctl(vcpu, KVM_RUN, 0) != 0) {
      return fail("KVM_RUN");
    }
    if (run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_OUT && run->io.port == EXIT_PORT) {
      uint8_t value = *((uint8_t*)run + run->io.data_offset);
      return (value << 1) | 1;
    }
    if (run->exit_reason != KVM_EXIT_IO && run->exit_reason != KVM_EXIT_MMIO) {
      fprintf(stderr, "bare: exit reason %u\n", run->exit_reason);
      return FAILED;
    }
  }
}
