#include "vmm/monitor/qmp_guest.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>

#include "base/unique_fd.hpp"
#include "vmm/monitor/qmp_media.hpp"

namespace whistler::qmp {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kLargestDump = std::uint64_t{1} << 40;

/// Fills `piece` with the guest's bytes at an address; false ends the copy.
using Peek = std::function<bool(std::uint64_t address, std::span<std::uint8_t> piece)>;

Answer<void> write_all(int fd, std::span<const std::uint8_t> bytes, const std::string& file) {
  while (!bytes.empty()) {
    const auto put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) {
      continue;
    }
    if (put <= 0) {
      return refuse(fmt::format("An IO error has occurred: {}: {}", file, std::strerror(errno)));
    }
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

/// Writes pages one after the other: a guest's memory may be larger than what is free on the host.
Answer<Json> save(std::uint64_t from, std::uint64_t bytes, const std::string& file, const Peek& peek) {
  const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!fd) {
    return refuse(fmt::format("Could not open '{}': {}", file, std::strerror(errno)));
  }
  std::array<std::uint8_t, kPage> page{};
  while (bytes != 0) {
    const auto now = std::min(bytes, kPage - from % kPage);
    const auto piece = std::span(page).first(static_cast<std::size_t>(now));
    if (!peek(from, piece)) {
      return refuse(fmt::format("Invalid addr {:#018x}/size {} specified", from, bytes));
    }
    if (auto put = write_all(fd.get(), piece, file); !put) {
      return std::unexpected(put.error());
    }
    from += now;
    bytes -= now;
  }
  return Json::object();
}

Peek physical(MachineControl& machine) {
  return [&machine](std::uint64_t address, std::span<std::uint8_t> piece) {
    const std::scoped_lock lock(machine.pc().lock());
    machine.pc().board().memory().read(address, piece);
    return true;
  };
}

Peek linear(MachineControl& machine, unsigned cpu) {
  return [&machine, cpu](std::uint64_t address, std::span<std::uint8_t> piece) {
    const auto place = machine.translate(cpu, address);
    if (!place) {
      return false;
    }
    const std::scoped_lock lock(machine.pc().lock());
    machine.pc().board().memory().read(*place, piece);
    return true;
  };
}

Answer<Json> use_password(MachineControl& machine, const std::string& password) {
  const auto set = machine.pc().set_vnc_password(password);
  return set ? Answer<Json>(Json::object()) : refuse("Could not set password");
}

}  // namespace

Answer<Json> save_physical(MachineControl& machine, Arguments& arguments) {
  const auto from = arguments.number("val");
  const auto bytes = arguments.number("size");
  const auto file = arguments.text("filename");
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  if (from < 0 || bytes < 0 || static_cast<std::uint64_t>(bytes) > kLargestDump) {
    return refuse(fmt::format("Parameter 'size' expects a size up to {}", kLargestDump));
  }
  return save(static_cast<std::uint64_t>(from), static_cast<std::uint64_t>(bytes), file, physical(machine));
}

Answer<Json> save_linear(MachineControl& machine, Arguments& arguments) {
  const auto from = arguments.number("val");
  const auto bytes = arguments.number("size");
  const auto file = arguments.text("filename");
  const auto cpu = arguments.number_or("cpu-index", 0);
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  if (cpu < 0 || static_cast<std::uint64_t>(cpu) >= machine.thread_ids().size()) {
    return refuse("Parameter 'cpu-index' expects a CPU number");
  }
  if (bytes < 0 || static_cast<std::uint64_t>(bytes) > kLargestDump) {
    return refuse(fmt::format("Parameter 'size' expects a size up to {}", kLargestDump));
  }
  return save(static_cast<std::uint64_t>(from), static_cast<std::uint64_t>(bytes), file,
              linear(machine, static_cast<unsigned>(cpu)));
}

Answer<Json> set_password(MachineControl& machine, Arguments& arguments) {
  const auto protocol = arguments.text("protocol");
  const auto password = arguments.text("password");
  const auto connected = arguments.text_or("connected", "keep");
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  if (protocol != "vnc") {
    return refuse(fmt::format("Parameter 'protocol' does not accept value '{}'", protocol));
  }
  if (connected != "keep") {
    return refuse("parameter 'connected' must be 'keep' when 'protocol' is 'vnc'");
  }
  return use_password(machine, password);
}

Answer<Json> change_vnc_password(MachineControl& machine, Arguments& arguments) {
  const auto password = arguments.text("password");
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  return use_password(machine, password);
}

}  // namespace whistler::qmp
