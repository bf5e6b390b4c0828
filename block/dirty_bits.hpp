// Which parts of a disk have been written to: one bit for each `granularity` bytes, as qcow2 stores them (bit
// n is bit n % 8 of byte n / 8).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>
#include <span>
#include <vector>

namespace whistler {

/// Memory that is zero, and that the host provides only where it is written to.
template <typename T>
struct ZeroedAllocator {
  using value_type = T;
  [[nodiscard]] T* allocate(std::size_t count) {
    auto* const memory = static_cast<T*>(std::calloc(count, sizeof(T)));
    if (memory == nullptr) {
      throw std::bad_alloc();
    }
    return memory;
  }
  void deallocate(T* memory, std::size_t /*count*/) { std::free(memory); }
  /// Zero already.
  void construct(T* /*at*/) {}
  template <typename... From>
  void construct(T* at, From&&... from) {
    ::new (static_cast<void*>(at)) T(std::forward<From>(from)...);
  }
  bool operator==(const ZeroedAllocator&) const = default;
};

class DirtyBits {
 public:
  /// All clear, for a disk of `disk_bytes`. The caller bounds the memory this takes: see bytes_for().
  DirtyBits(std::uint64_t disk_bytes, unsigned granularity_bits);
  /// Bytes of bits for a disk of that size.
  [[nodiscard]] static std::uint64_t bytes_for(std::uint64_t disk_bytes, unsigned granularity_bits);

  [[nodiscard]] std::uint64_t granularity() const { return std::uint64_t{1} << granularity_bits_; }
  [[nodiscard]] unsigned granularity_bits() const { return granularity_bits_; }
  [[nodiscard]] std::uint64_t disk_bytes() const { return disk_bytes_; }
  /// Marks all of [offset, offset + bytes), of which what lies beyond the disk is left out.
  void set(std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] bool get(std::uint64_t offset) const;
  void clear();
  /// Unmarks [offset, offset + bytes): whole units, or up to the disk's end.
  void clear(std::uint64_t offset, std::uint64_t bytes);
  /// Marks whatever `other` marks; its granularity may be another.
  void merge(const DirtyBits& other);
  /// For a disk of another size; what is new is clear.
  void resize(std::uint64_t disk_bytes);

  struct Stretch {
    bool dirty = false;
    std::uint64_t bytes = 0;
  };
  /// How the disk is marked from `offset` on, and for how many bytes that holds, up to the disk's end.
  [[nodiscard]] Stretch stretch(std::uint64_t offset) const;
  /// Bytes marked.
  [[nodiscard]] std::uint64_t count() const;

  [[nodiscard]] std::span<const std::uint8_t> raw() const { return bits_; }
  /// The same, to be filled with stored bits; ends with loaded().
  [[nodiscard]] std::span<std::uint8_t> to_load() { return bits_; }
  /// Drops what lies behind the disk's end.
  void loaded() { clear_tail(); }

 private:
  void clear_tail();

  std::uint64_t disk_bytes_;
  unsigned granularity_bits_;
  std::vector<std::uint8_t, ZeroedAllocator<std::uint8_t>> bits_;
};

}  // namespace whistler
