#include "devices/legacy/fw_cfg.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include <fmt/format.h>

#include "base/bytes.hpp"

namespace whistler {
namespace {

// The control word of a DMA request (docs/specs/fw_cfg.rst, "DMA Interface").
constexpr std::uint32_t kDmaError = 0x01;
constexpr std::uint32_t kDmaRead = 0x02;
constexpr std::uint32_t kDmaSkip = 0x04;
constexpr std::uint32_t kDmaSelect = 0x08;
constexpr std::uint32_t kDmaWrite = 0x10;

constexpr std::uint16_t kWriteChannel =
    0x4000;  // a bit of the selector that old guests set; it changes nothing
constexpr std::uint16_t kArchLocal = 0x8000;
constexpr std::size_t kDirectoryEntry = 64;
constexpr std::string_view kDmaSignature = "QEMU CFG";

bool is_file_key(std::uint16_t key) { return key >= FwCfg::kFirstFile && key <= FwCfg::kLastFile; }

/// Fills guest memory with zeros; false as soon as some of it is no RAM.
bool clear(const GuestMemory& memory, std::uint64_t address, std::uint64_t length) {
  while (length > 0) {
    const auto ram = memory.slice(address, length);
    if (ram.empty()) {
      return false;
    }
    std::memset(ram.data(), 0, ram.size());
    address += ram.size();
    length -= ram.size();
  }
  return true;
}

}  // namespace

FwCfg::FwCfg(const GuestMemory& memory) : memory_(memory) {
  items_[kSignature] = {'Q', 'E', 'M', 'U'};
  items_[kId] = {3, 0, 0, 0};
  number_files();
}

Result<void> FwCfg::add_item(std::uint16_t key, std::vector<std::uint8_t> bytes) {
  const bool own = key == kSignature || key == kId || key == kFileDirectory;
  if (own || is_file_key(key) || (key & kWriteChannel) != 0) {
    return fail(ErrorCode::kInvalid, "fw_cfg: key " + std::to_string(key) + " is not free for items");
  }
  items_[key] = std::move(bytes);
  return {};
}

Result<void> FwCfg::add_file(std::string_view name, std::vector<std::uint8_t> bytes, bool writable) {
  if (name.empty() || name.size() > kMaxNameLength || name.contains('\0')) {
    return fail(ErrorCode::kInvalid, "fw_cfg: '" + std::string(name) + "' is not a file name of 1 to " +
                                         std::to_string(kMaxNameLength) + " characters");
  }
  if (bytes.size() > 0xFFFF'FFFF) {
    return fail(ErrorCode::kInvalid, "fw_cfg: file '" + std::string(name) + "' is larger than 4 GiB");
  }
  if (files_.contains(name)) {
    return fail(ErrorCode::kExists, "fw_cfg: file '" + std::string(name) + "' exists already");
  }
  if (files_.size() > kLastFile - kFirstFile) {
    return fail(ErrorCode::kNoSpace, "fw_cfg: too many files to add '" + std::string(name) + "'");
  }
  File file{.bytes = std::move(bytes), .original = {}, .writable = writable};
  if (writable) {
    file.original = file.bytes;
  }
  files_.emplace(name, std::move(file));
  number_files();
  return {};
}

void FwCfg::set_file(std::string_view name, std::vector<std::uint8_t> bytes) {
  if (const auto found = files_.find(name); found != files_.end()) {
    found->second.bytes = std::move(bytes);
    number_files();
  }
}

std::span<const std::uint8_t> FwCfg::file(std::string_view name) const {
  const auto found = files_.find(name);
  return found == files_.end() ? std::span<const std::uint8_t>{} : found->second.bytes;
}

/// Gives keys in the order of names, and writes the directory: count, then { size, key, 0, name[56] },
/// big-endian.
void FwCfg::number_files() {
  by_key_.clear();
  std::vector<std::uint8_t> directory(4 + kDirectoryEntry * files_.size());
  store_be<std::uint32_t>(directory.data(), static_cast<std::uint32_t>(files_.size()));
  std::size_t at = 4;
  for (auto entry = files_.begin(); entry != files_.end(); ++entry) {
    auto& [name, file] = *entry;
    const auto key = static_cast<std::uint16_t>(kFirstFile + by_key_.size());
    by_key_.push_back(entry);
    store_be<std::uint32_t>(&directory[at], static_cast<std::uint32_t>(file.bytes.size()));
    store_be<std::uint16_t>(&directory[at + 4], key);
    std::memcpy(&directory[at + 8], name.data(), name.size());
    at += kDirectoryEntry;
  }
  items_[kFileDirectory] = std::move(directory);
}

void FwCfg::select(std::uint16_t key) {
  state_.selector = key;
  state_.offset = 0;
}

std::span<const std::uint8_t> FwCfg::selected() const {
  const auto key = static_cast<std::uint16_t>(state_.selector & ~kWriteChannel);
  if ((key & kArchLocal) == 0 && is_file_key(key)) {
    const std::size_t index = key - kFirstFile;
    return index < by_key_.size() ? std::span<const std::uint8_t>(by_key_[index]->second.bytes)
                                  : std::span<const std::uint8_t>{};
  }
  const auto found = items_.find(key);
  return found == items_.end() ? std::span<const std::uint8_t>{} : found->second;
}

std::span<std::uint8_t> FwCfg::selected_writable() {
  const auto key = static_cast<std::uint16_t>(state_.selector & ~kWriteChannel);
  const std::size_t index = is_file_key(key) ? std::size_t{key} - kFirstFile : by_key_.size();
  if (index >= by_key_.size() || !by_key_[index]->second.writable) {
    return {};
  }
  return by_key_[index]->second.bytes;
}

std::uint8_t FwCfg::read_byte() {
  const auto bytes = selected();
  return state_.offset < bytes.size() ? bytes[state_.offset++] : std::uint8_t{0};
}

std::uint64_t FwCfg::Ports::read(std::uint64_t, unsigned width) {
  return width == 1 ? owner_.read_byte() : 0;  // both ports answer byte reads with data, as QEMU's do
}

void FwCfg::Ports::write(std::uint64_t, unsigned width, std::uint64_t value) {
  if (width == 2) {
    owner_.select(static_cast<std::uint16_t>(value));
  }
}

std::uint64_t FwCfg::Dma::read(std::uint64_t offset, unsigned width) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < width && offset + i < kDmaSignature.size(); ++i) {
    value |= std::uint64_t{static_cast<std::uint8_t>(kDmaSignature[offset + i])} << (8 * i);
  }
  return value;
}

void FwCfg::Dma::write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  auto& address = owner_.state_.dma_address;
  if (width == 8 && offset == 0) {
    address = std::byteswap(value);
    owner_.run_dma();
  } else if (width == 4 && offset == 0) {
    address = std::uint64_t{std::byteswap(static_cast<std::uint32_t>(value))} << 32;
  } else if (width == 4 && offset == 4) {
    address = (address & ~std::uint64_t{0xFFFF'FFFF}) | std::byteswap(static_cast<std::uint32_t>(value));
    owner_.run_dma();
  }
}

void FwCfg::run_dma() {
  const std::uint64_t request = state_.dma_address;
  state_.dma_address = 0;
  std::array<std::uint8_t, 16> descriptor{};
  bool done = false;
  if (request <= ~std::uint64_t{descriptor.size()} && memory_.read(request, descriptor)) {
    done = transfer(load_be<std::uint32_t>(&descriptor[0]), load_be<std::uint32_t>(&descriptor[4]),
                    load_be<std::uint64_t>(&descriptor[8]));
  }
  std::array<std::uint8_t, 4> answer{};
  store_be<std::uint32_t>(answer.data(), done ? 0 : kDmaError);
  if (request <= ~std::uint64_t{descriptor.size()}) {
    static_cast<void>(
        memory_.write(request, answer));  // a guest that put its request outside RAM gets no answer
  }
}

/// Carries out one request; false is reported to the guest as an error.
bool FwCfg::transfer(std::uint32_t control, std::uint32_t length, std::uint64_t address) {
  if ((control & kDmaSelect) != 0) {
    select(static_cast<std::uint16_t>(control >> 16));
  }
  if ((control & (kDmaRead | kDmaWrite | kDmaSkip)) == 0 || length == 0) {
    return true;
  }
  const auto source = selected();
  const auto at = std::min<std::size_t>(state_.offset, source.size());
  const auto count = std::min<std::size_t>(length, source.size() - at);
  if ((control & (kDmaRead | kDmaWrite)) != 0 && address > ~std::uint64_t{length}) {
    return false;
  }
  bool good = true;
  if ((control & kDmaRead) != 0) {
    // Past the end of an item there are zeros.
    good =
        memory_.write(address, source.subspan(at, count)) && clear(memory_, address + count, length - count);
  } else if ((control & kDmaWrite) != 0) {
    const auto target = selected_writable();
    if (target.empty() || count != length) {
      return false;  // read-only, or it does not fit: nothing is written
    }
    std::vector<std::uint8_t> bytes(count);
    good = memory_.read(address, bytes);
    if (good) {
      std::memcpy(&target[at], bytes.data(), count);
    }
  }
  state_.offset = static_cast<std::uint32_t>(at + count);
  return good;
}

void FwCfg::reset() {
  state_ = State{};
  for (auto& [name, file] : files_) {
    if (file.writable) {
      file.bytes = file.original;
    }
  }
}

void FwCfg::save(StateWriter& writer) const {
  State state = state_;
  for (const auto& [name, file] : files_) {
    if (file.writable) {
      state.written.insert(state.written.end(), file.bytes.begin(), file.bytes.end());
    }
  }
  writer.put(state);
}

Result<void> FwCfg::load(const StateReader& reader) {
  State loaded;
  if (auto done = reader.get(loaded); !done) {
    return std::unexpected(done.error().within(id()));
  }
  std::size_t expected = 0;
  for (const auto& [name, file] : files_) {
    expected += file.writable ? file.bytes.size() : 0;
  }
  if (loaded.written.size() != expected) {
    return fail(ErrorCode::kCorrupt,
                fmt::format("fw-cfg: saved state has {} bytes of writable files, this machine {}",
                            loaded.written.size(), expected));
  }
  auto from = std::span<const std::uint8_t>(loaded.written);
  for (auto& [name, file] : files_) {
    if (file.writable) {
      const auto part = from.first(file.bytes.size());
      file.bytes.assign(part.begin(), part.end());
      from = from.subspan(part.size());
    }
  }
  loaded.written.clear();
  state_ = std::move(loaded);
  return {};
}

}  // namespace whistler
