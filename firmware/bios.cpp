#include "firmware/bios.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

namespace whistler {
namespace {

constexpr std::uint64_t kKib = 1024;
constexpr std::uint64_t kMaxImage = 16 * 1024 * kKib;

/// Closes on every way out.
struct Descriptor {
  int fd;
  explicit Descriptor(int number) : fd(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) {
      ::close(fd);
    }
  }
};

std::unexpected<Error> wrong(const std::string& path, std::uint64_t size, const std::string& wanted) {
  return fail(ErrorCode::kInvalid, path + ": " + std::to_string(size) + " bytes; " + wanted);
}

}  // namespace

Result<std::vector<std::uint8_t>> load_file(const std::string& path, std::uint64_t max_size) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status{};
  if (file.fd < 0 || ::fstat(file.fd, &status) != 0) {
    return fail_errno(errno, path);
  }
  if (!S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kInvalid, path + ": not a regular file");
  }
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size > max_size) {
    return wrong(path, size, "at most " + std::to_string(max_size) + " are possible");
  }
  std::vector<std::uint8_t> bytes(size);
  for (std::size_t done = 0; done < bytes.size();) {
    const auto got = ::read(file.fd, &bytes[done], bytes.size() - done);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return fail_errno(errno, path);
    }
    if (got == 0) {
      return fail(ErrorCode::kIo, path + ": became shorter while it was read");
    }
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

Result<std::vector<std::uint8_t>> load_bios(const std::string& path) {
  auto bytes = load_file(path, kMaxImage);
  if (bytes && (bytes->empty() || bytes->size() % (64 * kKib) != 0)) {
    return wrong(path, bytes->size(), "a BIOS is a multiple of 65536, up to 16777216");
  }
  return bytes;
}

Result<std::vector<std::uint8_t>> load_option_rom(const std::string& path) {
  auto bytes = load_file(path, kMaxImage);
  if (!bytes) {
    return bytes;
  }
  if (bytes->size() < 512 || (*bytes)[0] != 0x55 || (*bytes)[1] != 0xAA) {
    return wrong(path, bytes->size(), "an option ROM has at least 512 and begins with 55 AA");
  }
  bytes->resize(std::max<std::size_t>(4 * kKib, std::bit_ceil(bytes->size())), 0xFF);
  return bytes;
}

}  // namespace whistler
