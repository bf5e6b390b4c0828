#include "block/crypto/luks.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "block/crypto/af_split.hpp"
#include "block/uring/stoppable.hpp"

namespace whistler::crypto {

namespace {

constexpr unsigned kErasePasses = 4;

/// Iterations that take about `milliseconds` for a key of that length, at least as many as make guessing
/// slow.
Result<std::uint32_t> iterations_for(HashAlgorithm hash, std::size_t key_bytes, std::uint64_t milliseconds,
                                     std::uint64_t divisor) {
  if (milliseconds == 0) {
    return kMinLuksIterations;
  }
  const auto rate = iterations_per_second(hash, key_bytes);
  if (rate > ~std::uint64_t{0} / milliseconds) {
    return fail(ErrorCode::kInvalid, fmt::format("PBKDF iterations {} too large to scale", rate));
  }
  const auto wanted = rate * milliseconds / 1000 / divisor;
  if (wanted > kMaxLuksIterations) {
    return fail(ErrorCode::kInvalid,
                fmt::format("PBKDF iterations {} larger than {}", wanted, kMaxLuksIterations));
  }
  return std::max(static_cast<std::uint32_t>(wanted), kMinLuksIterations);
}

/// A slot that opens with `password`, at the place `old` has, and the material to be written there.
struct FilledSlot {
  LuksSlot slot;
  Secret material;
};
Result<FilledSlot> fill(const LuksHeader& header, const LuksSlot& old, const Secret& master_key,
                        const Secret& password, std::uint64_t milliseconds) {
  const auto iterations = iterations_for(header.hash, header.key_bytes(), milliseconds, 1);
  if (!iterations) {
    return std::unexpected(iterations.error());
  }
  FilledSlot filled{old, Secret(header.material_bytes())};
  filled.slot.active = true;
  filled.slot.iterations = *iterations;
  fill_random(filled.slot.salt);
  Secret key(header.key_bytes());
  if (auto ok = derive_key(header.hash, password.bytes(), filled.slot.salt, *iterations, key.bytes()); !ok) {
    return std::unexpected(ok.error());
  }
  auto cipher = SectorCipher::create(header.cipher, key.bytes());
  if (!cipher) {
    return std::unexpected(cipher.error());
  }
  const auto split = filled.material.bytes().first(header.key_bytes() * kLuksStripes);
  af_split(header.hash, master_key.bytes(), kLuksStripes, split);
  cipher->encrypt(0, filled.material.bytes(), filled.material.data());
  return filled;
}

/// The key, if `password` is what the slot was filled with.
Result<std::optional<Secret>> try_slot(const LuksHeader& header, const LuksSlot& slot, Secret& material,
                                       const Secret& password) {
  Secret key(header.key_bytes());
  auto ok = derive_key(header.hash, password.bytes(), slot.salt, slot.iterations, key.bytes());
  if (!ok) {
    return std::unexpected(ok.error());
  }
  auto cipher = SectorCipher::create(header.cipher, key.bytes());
  if (!cipher) {
    return std::unexpected(cipher.error());
  }
  cipher->decrypt(0, material.bytes(), material.data());
  af_merge(header.hash, material.bytes().first(key.size() * kLuksStripes), kLuksStripes, key.bytes());
  Secret digest(kLuksDigestBytes);
  ok = derive_key(header.hash, key.bytes(), header.salt, header.iterations, digest.bytes());
  if (!ok) {
    return std::unexpected(ok.error());
  }
  if (!equal(digest.bytes(), header.digest)) {
    return std::nullopt;
  }
  return key;
}

}  // namespace

Task<Result<Luks>> Luks::load(BlockDevice& file, std::uint64_t offset) {
  std::array<std::uint8_t, kLuksHeaderBytes> bytes{};
  const iovec vec{bytes.data(), bytes.size()};
  if (offset > file.size() || file.size() - offset < bytes.size()) {
    co_return fail(ErrorCode::kInvalid, "Volume is not in LUKS format");
  }
  auto read = co_await file.readv(offset, {&vec, 1});
  if (!read) {
    co_return std::unexpected(read.error().within("Unable to read LUKS header"));
  }
  auto header = parse_luks_header(bytes);
  if (!header) {
    co_return std::unexpected(header.error());
  }
  co_return Luks(file, offset, std::move(*header));
}

Result<std::uint64_t> Luks::payload_offset(const LuksOptions& options) {
  auto header = plan_luks_header(options);
  if (!header) {
    return std::unexpected(header.error());
  }
  return header->payload_offset;
}

Result<Luks::New> Luks::make(const LuksOptions& options, const Secret& password) {
  auto header = plan_luks_header(options);
  if (!header) {
    return std::unexpected(header.error());
  }
  New made{std::move(*header), {}, {}};
  made.master_key = Secret(made.header.key_bytes());
  fill_random(made.master_key.bytes());
  // Whether cipher, mode and generator go together is known before anything takes time.
  if (auto cipher = SectorCipher::create(made.header.cipher, made.master_key.bytes()); !cipher) {
    return std::unexpected(cipher.error());
  }
  const auto iterations = iterations_for(options.hash, kLuksDigestBytes, options.iteration_milliseconds, 8);
  if (!iterations) {
    return std::unexpected(iterations.error());
  }
  std::array<std::uint8_t, kLuksSaltBytes> salt{};
  std::array<std::uint8_t, kLuksDigestBytes> digest{};
  fill_random(salt);
  auto ok = derive_key(options.hash, made.master_key.bytes(), salt, *iterations, digest);
  if (!ok) {
    return std::unexpected(ok.error());
  }
  made.header.set_digest(salt, *iterations, digest);
  auto filled =
      fill(made.header, made.header.slots[0], made.master_key, password, options.iteration_milliseconds);
  if (!filled) {
    return std::unexpected(filled.error());
  }
  made.header.set_slot(0, filled->slot);
  made.bytes.resize(static_cast<std::size_t>(filled->slot.offset) + filled->material.size());
  std::copy(made.header.raw.begin(), made.header.raw.end(), made.bytes.begin());
  const auto material = filled->material.bytes();
  std::copy(material.begin(), material.end(),
            made.bytes.begin() + static_cast<std::ptrdiff_t>(filled->slot.offset));
  return made;
}

Task<Result<Secret>> Luks::read_material(std::size_t slot) {
  Secret material(header_.material_bytes());
  const auto offset = offset_ + header_.slots[slot].offset;
  const iovec vec{material.data(), material.size()};
  auto read = co_await file_->readv(offset, {&vec, 1});
  if (!read) {
    co_return std::unexpected(read.error().within("Failed to read key material"));
  }
  co_return std::move(material);
}

Task<Result<std::optional<Secret>>> Luks::key_of_slot(std::size_t slot, const Secret& password, Ring* ring,
                                                      Stop* stop) {
  if (!header_.slots[slot].active) {
    co_return std::optional<Secret>{};
  }
  auto material = co_await read_material(slot);
  if (!material) {
    co_return std::unexpected(material.error());
  }
  if (ring == nullptr || stop == nullptr) {
    co_return try_slot(header_, header_.slots[slot], *material, password);
  }
  auto attempt = [header = header_, slot, material = std::move(*material), password]() mutable {
    return try_slot(header, header.slots[slot], material, password);
  };
  auto tried = co_await in_thread(*ring, std::move(attempt), stop);
  if (!tried) {
    co_return fail(ErrorCode::kCancelled, "unlocking it was given up");
  }
  co_return std::move(*tried);
}

Task<Result<void>> Luks::unlock(const Secret& password, Ring* ring, Stop* stop) {
  for (std::size_t slot = 0; slot < kLuksSlots; ++slot) {
    auto key = co_await key_of_slot(slot, password, ring, stop);
    if (!key) {
      co_return std::unexpected(key.error());
    }
    if (*key) {
      auto cipher = SectorCipher::create(header_.cipher, (*key)->bytes());
      if (!cipher) {
        co_return std::unexpected(cipher.error());
      }
      master_key_ = std::move(**key);
      cipher_ = std::move(*cipher);
      co_return Result<void>{};
    }
  }
  co_return fail(ErrorCode::kPermission, "Invalid password, cannot unlock any keyslot");
}

Task<Result<void>> Luks::write(std::uint64_t offset, Bytes bytes) {
  const iovec vec{bytes.data(), bytes.size()};
  auto done = co_await file_->writev(offset_ + offset, {&vec, 1});
  if (done) {
    done = co_await file_->flush();
  }
  co_return done;
}

Task<Result<void>> Luks::fill_slot(std::size_t index, LuksSlot slot, Secret& material) {
  slot.offset = header_.slots[index].offset;
  auto done = co_await write(slot.offset, material.bytes());
  if (done) {
    header_.set_slot(index, slot);
    done = co_await write(0, header_.raw);
  }
  if (!done) {
    co_return std::unexpected(done.error().within(fmt::format("Failed to write to keyslot {}", index)));
  }
  co_return done;
}

Task<Result<void>> Luks::erase_slot(std::size_t slot) {
  LuksSlot empty{.offset = header_.slots[slot].offset};
  header_.set_slot(slot, empty);
  auto done = co_await write(0, header_.raw);
  Secret noise(header_.material_bytes());
  for (unsigned pass = 0; done && pass < kErasePasses; ++pass) {
    fill_random(noise.bytes());
    done = co_await write(empty.offset, noise.bytes());
  }
  if (!done) {
    co_return std::unexpected(done.error().within(fmt::format("Failed to erase keyslot {}", slot)));
  }
  co_return done;
}

Task<Result<void>> Luks::amend(LuksAmend change) {
  Result<void> done;
  if (change.activate) {
    done = co_await add(change);
  } else {
    done = co_await erase(change);
  }
  co_return done;
}

Task<Result<void>> Luks::add(const LuksAmend& change) {
  const auto invalid = [](std::string why) { return fail(ErrorCode::kInvalid, std::move(why)); };
  if (!change.new_password) {
    co_return invalid("'new-secret' is required to activate a keyslot");
  }
  if (change.old_password) {
    co_return invalid("'old-secret' must not be given when activating keyslots");
  }
  if (!unlocked()) {
    co_return invalid("the volume must be unlocked before a key can be added");
  }
  const auto& slots = header_.slots;
  const auto first_free = static_cast<std::size_t>(
      std::find_if(slots.begin(), slots.end(), [](const LuksSlot& slot) { return !slot.active; }) -
      slots.begin());
  std::size_t target = first_free;
  if (change.slot) {
    if (*change.slot >= kLuksSlots) {
      co_return invalid(fmt::format("Invalid keyslot {} specified, must be between 0 and {}", *change.slot,
                                    kLuksSlots - 1));
    }
    target = static_cast<std::size_t>(*change.slot);
    if (slots[target].active && !change.force) {
      co_return invalid(
          fmt::format("Refusing to overwrite active keyslot {} - please erase it first", target));
    }
  } else if (target == kLuksSlots) {
    co_return invalid("Can't add a keyslot - all keyslots are in use");
  }
  auto filled = fill(header_, slots[target], master_key_, *change.new_password,
                     change.iteration_milliseconds.value_or(LuksOptions{}.iteration_milliseconds));
  if (!filled) {
    co_return std::unexpected(filled.error());
  }
  // An active slot is overwritten: until its new content is complete, another one holds the new key.
  const bool in_two_steps = slots[target].active && first_free < kLuksSlots;
  Result<void> done;
  if (in_two_steps) {
    done = co_await fill_slot(first_free, filled->slot, filled->material);
  }
  if (done) {
    done = co_await fill_slot(target, filled->slot, filled->material);
  }
  if (done && in_two_steps) {
    done = co_await erase_slot(first_free);
  }
  co_return done;
}

Task<Result<void>> Luks::erase(const LuksAmend& change) {
  const auto invalid = [](std::string why) { return fail(ErrorCode::kInvalid, std::move(why)); };
  if (change.new_password) {
    co_return invalid("'new-secret' must not be given when erasing keyslots");
  }
  if (change.iteration_milliseconds) {
    co_return invalid("'iter-time' must not be given when erasing keyslots");
  }
  if (!change.slot && !change.old_password) {
    co_return invalid(
        "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must "
        "be given");
  }
  if (change.slot && *change.slot >= kLuksSlots) {
    co_return invalid(
        fmt::format("Invalid keyslot {} specified, must be between 0 and {}", *change.slot, kLuksSlots - 1));
  }
  std::vector<std::size_t> matching;
  for (std::size_t slot = 0; slot < kLuksSlots; ++slot) {
    if (change.slot && slot != *change.slot) {
      continue;
    }
    if (!change.old_password) {
      matching.push_back(slot);
      continue;
    }
    auto key = co_await key_of_slot(slot, *change.old_password);
    if (!key) {
      co_return std::unexpected(key.error());
    }
    if (*key) {
      matching.push_back(slot);
    }
  }
  if (matching.empty()) {
    co_return invalid(
        change.slot
            ? fmt::format("Given keyslot {} doesn't contain the given old password for erase operation",
                          *change.slot)
            : "No keyslots match given (old) password for erase operation");
  }
  if (change.slot && !change.force && !header_.slots[matching.front()].active) {
    co_return invalid(fmt::format("Given keyslot {} is already erased (inactive) ", *change.slot));
  }
  if (!change.force && matching.size() == header_.active_slots()) {
    co_return invalid(
        change.slot
            ? fmt::format(
                  "Attempt to erase the only active keyslot {} which will erase all the data in the image "
                  "irreversibly - refusing operation",
                  *change.slot)
            : "All the active keyslots match the (old) password that was given and erasing them will erase "
              "all the "
              "data in the image irreversibly - refusing operation");
  }
  for (const auto slot : matching) {
    auto done = co_await erase_slot(slot);
    if (!done) {
      co_return done;
    }
  }
  co_return Result<void>{};
}

}  // namespace whistler::crypto
