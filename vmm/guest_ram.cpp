#include "vmm/guest_ram.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace whistler {

Result<GuestRam> GuestRam::create(std::uint64_t bytes, Options options) {
  UniqueFd fd(::memfd_create("guest-ram", MFD_CLOEXEC | (options.huge_pages ? MFD_HUGETLB : 0U)));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return fail_errno(errno, fmt::format("memory: {} MiB of guest memory cannot be set up", bytes >> 20));
  }
  const int sharing = options.merge ? MAP_PRIVATE : MAP_SHARED;
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, sharing | MAP_NORESERVE, fd.get(), 0);
  if (at == MAP_FAILED) {
    if (options.huge_pages) {
      return fail(
          ErrorCode::kNoSpace,
          fmt::format(
              "memory_options.huge_pages: the host's pool is too small for {} MiB; set it with `sysctl "
              "vm.nr_hugepages={}`, or switch the option off",
              bytes >> 20, (bytes + (2U << 20) - 1) >> 21));
    }
    return fail_errno(errno, fmt::format("memory: {} MiB of guest memory cannot be mapped", bytes >> 20));
  }
  if (options.merge) {
    ::madvise(at, bytes, MADV_MERGEABLE);
  }
  return GuestRam(std::move(fd), {static_cast<std::uint8_t*>(at), bytes});
}

GuestRam::GuestRam(GuestRam&& other) noexcept
    : fd_(std::move(other.fd_)), bytes_(std::exchange(other.bytes_, {})) {}

GuestRam::~GuestRam() {
  if (!bytes_.empty()) {
    ::munmap(bytes_.data(), bytes_.size());
  }
}

std::span<std::uint8_t> GuestRam::low() const {
  return bytes_.first(std::min(bytes_.size(), std::size_t{kMostLowRam}));
}
std::span<std::uint8_t> GuestRam::high() const { return bytes_.subspan(low().size()); }

Result<HostMemory> HostMemory::create(std::uint64_t bytes) {
  void* at =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    return fail_errno(errno, fmt::format("{} KiB of memory cannot be mapped", bytes >> 10));
  }
  return HostMemory({static_cast<std::uint8_t*>(at), bytes});
}

HostMemory::HostMemory(HostMemory&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

HostMemory::~HostMemory() {
  if (!bytes_.empty()) {
    ::munmap(bytes_.data(), bytes_.size());
  }
}

}  // namespace whistler
