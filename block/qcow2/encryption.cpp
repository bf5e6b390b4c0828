// Guest data encrypted: every sector of 512 bytes for itself, by its place in the file (LUKS) or on the
// guest's disk (old AES). Tables and compressed clusters are not encrypted.
#include <fmt/format.h>

#include <algorithm>

#include "block/aligned_buffer.hpp"
#include "block/iovec.hpp"
#include "block/qcow2/image.hpp"

namespace whistler::qcow2 {

namespace {
/// A longer write is done in pieces of this, to bound the memory for what is encrypted.
constexpr std::uint64_t kPieceBytes = 2 * 1024 * 1024;
}  // namespace

Task<Result<void>> Image::load_encryption() {
  const auto place = header_.crypto_header();
  if (!place) {
    co_return Result<void>{};
  }
  auto luks = co_await crypto::Luks::load(*file_, place->offset);
  if (!luks) {
    auto error = luks.error().within(name());
    error.brief = luks.error().message;
    co_return std::unexpected(std::move(error));
  }
  // The places of the key material are part of the LUKS header; the image says how much room there is for it.
  if (luks->header().payload_offset > place->bytes) {
    co_return corrupt(
        fmt::format("encryption header at offset {:#x} has {} bytes, but its key material needs {}",
                    place->offset, place->bytes, luks->header().payload_offset));
  }
  luks_ = std::move(*luks);
  co_return Result<void>{};
}

Task<Result<void>> Image::unlock(const crypto::Secret& password, Ring* ring, Stop* stop) {
  if (header_.crypt_method == CryptMethod::kLuks) {
    auto unlocked = co_await luks_->unlock(password, ring, stop);
    co_return unlocked;
  }
  if (header_.crypt_method == CryptMethod::kAes) {
    auto cipher = crypto::legacy_aes_cipher(password.bytes());
    if (!cipher) {
      co_return std::unexpected(cipher.error());
    }
    legacy_cipher_ = std::move(*cipher);
  }
  co_return Result<void>{};
}

Task<Result<void>> Image::amend_encryption(crypto::LuksAmend change) {
  if (!luks_) {
    co_return fail(ErrorCode::kUnsupported, encrypted()
                                                ? "Only LUKS encryption options can be amended"
                                                : "Can't amend encryption options - encryption not present");
  }
  if (auto ok = check_write(0, 0); !ok) {
    co_return ok;
  }
  auto done = co_await luks_->amend(std::move(change));
  co_return done;
}

crypto::SectorCipher* Image::cipher() {
  if (luks_) {
    return luks_->unlocked() ? &luks_->cipher() : nullptr;
  }
  return legacy_cipher_ ? &*legacy_cipher_ : nullptr;
}

std::unexpected<Error> Image::locked() const {
  return fail(ErrorCode::kPermission,
              fmt::format("{}: is encrypted, and was opened without a password", name()));
}

Result<void> Image::encrypt_for_move(std::uint64_t from, std::uint64_t to, crypto::Bytes data) {
  if (!luks_) {
    return {};
  }
  auto* const key = cipher();
  if (key == nullptr) {
    return locked();
  }
  key->decrypt(from / kSector, data, data.data());
  key->encrypt(to / kSector, data, data.data());
  return {};
}

Task<Result<void>> Image::read_encrypted(std::uint64_t offset, std::uint64_t host, IoVec to) {
  auto* const key = cipher();
  if (key == nullptr) {
    co_return locked();
  }
  const auto bytes = iovec_bytes(to);
  const auto number = luks_ ? host : offset;
  Result<void> read;
  if ((host | bytes) % kSector == 0) {
    read = co_await data().readv(host, to);
    if (read) {
      key->decrypt(number / kSector, to);
    }
  } else {
    const auto head = host % kSector;
    AlignedBuffer buffer(static_cast<std::size_t>(align_up(head + bytes, kSector)));
    const auto vec = buffer.vec();
    read = co_await data().readv(host - head, {&vec, 1});
    if (read) {
      key->decrypt(number / kSector, buffer.bytes(), buffer.data());
      copy_to_iovec(to, 0,
                    buffer.bytes().subspan(static_cast<std::size_t>(head), static_cast<std::size_t>(bytes)));
    }
  }
  co_return read;
}

/// Whole sectors: write_piece() sees to that.
Task<Result<void>> Image::write_encrypted(std::uint64_t offset, std::uint64_t host, IoVec from) {
  auto* const key = cipher();
  if (key == nullptr) {
    co_return locked();
  }
  const auto total = iovec_bytes(from);
  const auto number = luks_ ? host : offset;
  AlignedBuffer buffer(static_cast<std::size_t>(std::min(total, kPieceBytes)));
  for (std::uint64_t done = 0; done < total;) {
    const auto bytes = std::min(total - done, kPieceBytes);
    const IoSlice piece(from, done, bytes);
    key->encrypt((number + done) / kSector, piece.vec(), buffer.data());
    const iovec vec{buffer.data(), static_cast<std::size_t>(bytes)};
    auto written = co_await data().writev(host + done, {&vec, 1});
    if (!written) {
      co_return written;
    }
    done += bytes;
  }
  co_return Result<void>{};
}

}  // namespace whistler::qcow2
