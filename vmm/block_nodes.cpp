#include "vmm/block_nodes.hpp"

#include <fmt/format.h>

#include <utility>

#include "base/log.hpp"

namespace whistler {
namespace {

/// Passes everything on; closing it only flushes.
class Lent final : public BlockDevice {
 public:
  explicit Lent(std::shared_ptr<BlockNodes::Entry> entry) : entry_(std::move(entry)) { entry_->lent = true; }
  ~Lent() override { entry_->lent = false; }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;

  [[nodiscard]] std::uint64_t size() const override { return device().size(); }
  [[nodiscard]] bool read_only() const override { return device().read_only(); }
  [[nodiscard]] std::string name() const override { return device().name(); }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override {
    return device().readv(offset, to);
  }
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags flags) override {
    return device().writev(offset, from, flags);
  }
  [[nodiscard]] Task<Result<void>> flush() override { return device().flush(); }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t offset, std::uint64_t bytes) override {
    return device().discard(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags flags) override {
    return device().write_zeroes(offset, bytes, flags);
  }
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t offset, std::uint64_t bytes) override {
    return device().block_status(offset, bytes);
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override { return device().resize(bytes); }
  [[nodiscard]] Task<Result<void>> close() override { return device().flush(); }

 private:
  [[nodiscard]] BlockDevice& device() const { return *entry_->open.device; }
  std::shared_ptr<BlockNodes::Entry> entry_;
};

}  // namespace

BlockNodes::Entry* BlockNodes::find(const std::string& name) const {
  const auto found = nodes_.find(name);
  return found == nodes_.end() ? nullptr : found->second.get();
}

void BlockNodes::add(const std::string& name, OpenNode node) {
  auto entry = std::make_shared<Entry>();
  entry->open = std::move(node);
  nodes_[name] = std::move(entry);
  reserved_.erase(name);
}

OpenNode BlockNodes::remove(const std::string& name) {
  const auto found = nodes_.find(name);
  auto node = std::move(found->second->open);
  nodes_.erase(found);
  return node;
}

std::unique_ptr<BlockDevice> BlockNodes::lend(const std::string& name) {
  return std::make_unique<Lent>(nodes_.at(name));
}

void BlockNodes::close_all(Ring& ring) {
  for (const auto& [name, entry] : std::exchange(nodes_, {})) {
    if (auto closed = sync_wait(ring, entry->open.device->close()); !closed) {
      log(LogLevel::kError,
          fmt::format("{}: closing failed: {}", entry->open.device->name(), closed.error().message));
    }
  }
}

}  // namespace whistler
