// LUKS volumes in memory: keys come and go, damaged headers are refused.
#include <catch2/catch.hpp>

#include "base/bytes.hpp"
#include "block/crypto/luks_device.hpp"
#include "block/memory.hpp"

using namespace whistler;
using namespace whistler::crypto;

namespace {

using Buffer = std::vector<std::uint8_t>;

/// Everything in memory ends at once.
struct Inline final : Executor {
  void run_once(bool) override { FAIL("a task waits, though everything is in memory"); }
};

template <typename T>
T now(Task<T> task) {
  Inline executor;
  return sync_wait(executor, std::move(task));
}

Secret secret(std::string_view text) { return Secret(text); }

constexpr LuksOptions kQuick{.iteration_milliseconds = 0};
constexpr std::uint64_t kDiskBytes = 64 * 1024;

/// A volume whose password is "one".
struct Volume {
  MemoryBlockDevice disk{4 * 1024 * 1024};
  std::uint64_t payload = 0;

  explicit Volume(const LuksOptions& options = kQuick) {
    auto made = Luks::make(options, secret("one"));
    INFO((made ? std::string() : made.error().message));
    REQUIRE(made.has_value());
    payload = made->header.payload_offset;
    std::copy(made->bytes.begin(), made->bytes.end(), disk.bytes().begin());
  }
  Luks load() {
    auto luks = now(Luks::load(disk, 0));
    INFO((luks ? std::string() : luks.error().message));
    REQUIRE(luks.has_value());
    return std::move(*luks);
  }
  bool opens(std::string_view password) {
    auto luks = load();
    const auto unlocked = now(luks.unlock(secret(password)));
    CHECK((unlocked || unlocked.error().message == "Invalid password, cannot unlock any keyslot"));
    return unlocked.has_value();
  }
  std::string amend(LuksAmend change, std::string_view password = "one") {
    auto luks = load();
    if (change.activate) {
      REQUIRE(now(luks.unlock(secret(password))).has_value());
      change.iteration_milliseconds = 0;
    }
    const auto done = now(luks.amend(std::move(change)));
    return done ? "" : done.error().message;
  }
  /// The message for the header with `bytes` put at `offset`.
  std::string damaged(std::size_t offset, const Buffer& bytes) {
    auto header = Buffer(disk.bytes().begin(), disk.bytes().begin() + kLuksHeaderBytes);
    std::copy(bytes.begin(), bytes.end(), header.begin() + static_cast<std::ptrdiff_t>(offset));
    const auto parsed = parse_luks_header(header);
    return parsed ? "" : parsed.error().message;
  }
};

Buffer be32(std::uint32_t value) {
  Buffer bytes(4);
  store_be<std::uint32_t>(bytes.data(), value);
  return bytes;
}

Buffer text(const std::string& value) {
  Buffer bytes(value.begin(), value.end());
  bytes.push_back(0);
  return bytes;
}

constexpr std::size_t slot_field(std::size_t slot, std::size_t field) { return 208 + slot * 48 + field; }

}  // namespace

TEST_CASE("luks_new_volume_opens_with_its_password_only", "[crypto][luks]") {
  Volume volume;
  CHECK(volume.opens("one"));
  CHECK_FALSE(volume.opens("two"));
  CHECK_FALSE(volume.opens(""));
  CHECK(volume.payload == 2068480);
  CHECK(volume.load().header().uuid.size() == 36);
}

TEST_CASE("luks_volumes_of_every_cipher_and_hash_open_again", "[crypto][luks]") {
  const auto cipher =
      GENERATE(CipherAlgorithm::kAes128, CipherAlgorithm::kAes192, CipherAlgorithm::kAes256,
               CipherAlgorithm::kSerpent128, CipherAlgorithm::kSerpent192, CipherAlgorithm::kSerpent256,
               CipherAlgorithm::kTwofish128, CipherAlgorithm::kTwofish256, CipherAlgorithm::kCast5);
  const auto mode = GENERATE(CipherMode::kEcb, CipherMode::kCbc, CipherMode::kXts, CipherMode::kCtr);
  if (mode == CipherMode::kXts && cipher == CipherAlgorithm::kCast5) {
    return;  // has blocks of 8 bytes
  }
  INFO(name_of(cipher) << " " << name_of(mode));
  Volume volume({.cipher = {.cipher = cipher, .mode = mode}, .iteration_milliseconds = 0});
  CHECK(volume.opens("one"));
  CHECK_FALSE(volume.opens("two"));
}

TEST_CASE("luks_volumes_of_every_hash_and_generator_open_again", "[crypto][luks]") {
  const auto hash =
      GENERATE(HashAlgorithm::kMd5, HashAlgorithm::kSha1, HashAlgorithm::kSha224, HashAlgorithm::kSha256,
               HashAlgorithm::kSha384, HashAlgorithm::kSha512, HashAlgorithm::kRipemd160);
  const auto generator = GENERATE(IvGenerator::kPlain, IvGenerator::kPlain64, IvGenerator::kEssiv);
  INFO(name_of(hash) << " " << name_of(generator));
  Volume volume(
      {.cipher = {.mode = CipherMode::kCbc, .iv = generator}, .hash = hash, .iteration_milliseconds = 0});
  CHECK(volume.opens("one"));
}

TEST_CASE("luks_keys_are_added_replaced_and_erased", "[crypto][luks]") {
  Volume volume;
  CHECK(volume.amend({.activate = true, .new_password = secret("two")}) == "");
  CHECK(volume.load().header().slots[1].active);
  CHECK(volume.amend({.activate = true, .new_password = secret("six"), .slot = 6}) == "");
  CHECK(volume.opens("one"));
  CHECK(volume.opens("two"));
  CHECK(volume.opens("six"));
  CHECK(volume.amend({.activate = true, .new_password = secret("new"), .slot = 6}) ==
        "Refusing to overwrite active keyslot 6 - please erase it first");
  CHECK(volume.amend({.activate = true, .new_password = secret("new"), .slot = 6, .force = true}) == "");
  CHECK(volume.opens("new"));
  CHECK_FALSE(volume.opens("six"));
  CHECK(volume.load().header().active_slots() == 3);
  CHECK(volume.amend({.old_password = secret("one")}) == "");
  CHECK_FALSE(volume.opens("one"));
  CHECK(volume.amend({.slot = 6}) == "");
  CHECK_FALSE(volume.opens("new"));
  CHECK(volume.opens("two"));
}

TEST_CASE("luks_last_key_is_erased_only_by_force", "[crypto][luks]") {
  Volume volume;
  CHECK(
      volume.amend({.slot = 0}) ==
      "Attempt to erase the only active keyslot 0 which will erase all the data in the image irreversibly - "
      "refusing operation");
  CHECK(volume.amend({.old_password = secret("one")}) ==
        "All the active keyslots match the (old) password that was given and erasing them will erase all the "
        "data "
        "in the image irreversibly - refusing operation");
  CHECK(volume.opens("one"));
  CHECK(volume.amend({.slot = 0, .force = true}) == "");
  CHECK_FALSE(volume.opens("one"));
}

TEST_CASE("luks_erased_key_material_is_overwritten", "[crypto][luks]") {
  Volume volume;
  REQUIRE(volume.amend({.activate = true, .new_password = secret("two")}) == "");
  const auto& bytes = volume.disk.bytes();
  const Buffer before(bytes.begin() + 4096, bytes.begin() + 4096 + 256000);
  REQUIRE(volume.amend({.slot = 0}) == "");
  std::size_t same = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    same += before[i] == bytes[4096 + i] ? 1 : 0;
  }
  CHECK(same < before.size() / 100);  // about 1 of 256 by chance
}

TEST_CASE("luks_amend_refuses_what_makes_no_sense_in_qemus_words", "[crypto][luks]") {
  Volume volume;
  CHECK(volume.amend({.activate = true}) == "'new-secret' is required to activate a keyslot");
  CHECK(volume.amend({.activate = true, .new_password = secret("a"), .old_password = secret("b")}) ==
        "'old-secret' must not be given when activating keyslots");
  CHECK(volume.amend({.activate = true, .new_password = secret("a"), .slot = 8}) ==
        "Invalid keyslot 8 specified, must be between 0 and 7");
  CHECK(volume.amend({.new_password = secret("a")}) ==
        "'new-secret' must not be given when erasing keyslots");
  CHECK(volume.amend({.slot = 0, .iteration_milliseconds = 10}) ==
        "'iter-time' must not be given when erasing keyslots");
  CHECK(volume.amend({}) ==
        "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must "
        "be "
        "given");
  CHECK(volume.amend({.old_password = secret("x")}) ==
        "No keyslots match given (old) password for erase operation");
  CHECK(volume.amend({.old_password = secret("x"), .slot = 0}) ==
        "Given keyslot 0 doesn't contain the given old password for erase operation");
  CHECK(volume.amend({.slot = 3}) == "Given keyslot 3 is already erased (inactive) ");
}

TEST_CASE("luks_eight_keys_are_all_there_is_room_for", "[crypto][luks]") {
  Volume volume;
  for (int i = 1; i < 8; ++i) {
    REQUIRE(volume.amend({.activate = true, .new_password = secret("more")}) == "");
  }
  CHECK(volume.amend({.activate = true, .new_password = secret("more")}) ==
        "Can't add a keyslot - all keyslots are in use");
}

TEST_CASE("luks_hostile_headers_are_refused_with_the_field_named", "[crypto][luks][hostile]") {
  Volume volume;
  CHECK(parse_luks_header(Buffer(100)).error().message == "Volume is not in LUKS format");
  CHECK(volume.damaged(0, {'X'}) == "Volume is not in LUKS format");
  CHECK(volume.damaged(6, {0, 2}) == "LUKS version 2 is not supported");
  CHECK(volume.damaged(8, Buffer(32, 'a')) == "LUKS header cipher name is not NUL terminated");
  CHECK(volume.damaged(40, Buffer(32, 'a')) == "LUKS header cipher mode is not NUL terminated");
  CHECK(volume.damaged(72, Buffer(32, 'a')) == "LUKS header hash spec is not NUL terminated");
  CHECK(volume.damaged(104, be32(7)) == "LUKS payload is overlapping with the header");
  CHECK(volume.damaged(104, be32(4035)) == "Keyslot 7 is overlapping with the encrypted payload");
  CHECK(volume.damaged(164, be32(0)) == "LUKS key iteration count is zero");
  CHECK(volume.damaged(164, be32(0xffffffff)) ==
        "LUKS key iteration count 4294967295 is larger than 134217728");
  CHECK(volume.damaged(slot_field(2, 44), be32(3999)) == "Keyslot 2 is corrupted (stripes 3999 != 4000)");
  CHECK(volume.damaged(slot_field(2, 0), be32(1)) == "Keyslot 2 state (active/disable) is corrupted");
  CHECK(volume.damaged(slot_field(0, 4), be32(0)) == "Keyslot 0 iteration count is zero");
  CHECK(volume.damaged(slot_field(0, 4), be32(0xffffffff)) ==
        "Keyslot 0 iteration count 4294967295 is larger than 134217728");
  CHECK(volume.damaged(slot_field(0, 40), be32(7)) == "Keyslot 0 is overlapping with the LUKS header");
  CHECK(volume.damaged(slot_field(5, 40), be32(0xffffffff)) ==
        "Keyslot 5 is overlapping with the encrypted payload");
  CHECK(volume.damaged(slot_field(5, 40), be32(9)) == "Keyslots 0 and 5 are overlapping in the header");
  CHECK(volume.damaged(108, be32(0xffffffff)) == "Keyslot 0 is overlapping with the encrypted payload");
  CHECK(volume.damaged(108, be32(33)) == "XTS cipher key length should be a multiple of 2");
  CHECK(volume.damaged(108, be32(34)) == "Algorithm 'aes' with key size 17 bytes not supported");
  CHECK(volume.damaged(8, text("foo")) == "Algorithm 'foo' with key size 32 bytes not supported");
  CHECK(volume.damaged(8, text("\x1b[2J")) == "Algorithm '?[2J' with key size 32 bytes not supported");
  CHECK(volume.damaged(40, text("foo-plain64")) == "Cipher mode 'foo' not supported");
  CHECK(volume.damaged(40, text("xts-foo")) == "IV generator 'foo' not supported");
  CHECK(volume.damaged(40, text("xts")) == "Unexpected cipher mode string format 'xts'");
  CHECK(volume.damaged(40, text("xts-plain64:foo")) == "Hash algorithm 'foo' not supported");
  CHECK(volume.damaged(40, text("xts-essiv")) == "Missing IV generator hash specification");
  CHECK(volume.damaged(72, text("foo")) == "Hash algorithm 'foo' not supported");
}

TEST_CASE("luks_device_reads_and_writes_any_alignment", "[crypto][luks]") {
  MemoryBlockDevice* raw = nullptr;
  auto disk = std::make_unique<MemoryBlockDevice>(0);
  raw = disk.get();
  REQUIRE(now(LuksDevice::create(*disk, kQuick, secret("pw"), kDiskBytes)).has_value());
  auto opened = now(LuksDevice::open(std::move(disk)));
  REQUIRE(opened.has_value());
  auto& device = **opened;
  Buffer buffer(3000);
  const iovec vec{buffer.data(), buffer.size()};
  CHECK(now(device.readv(0, {&vec, 1})).error().code == ErrorCode::kPermission);
  REQUIRE(now(device.luks().unlock(secret("pw"))).has_value());
  CHECK(device.size() == kDiskBytes);

  Buffer model(kDiskBytes);
  REQUIRE(now(device.write_zeroes(0, kDiskBytes)).has_value());
  const std::array<std::pair<std::uint64_t, std::size_t>, 6> writes = {
      {{0, 512}, {511, 2}, {1000, 3000}, {4096, 1024}, {kDiskBytes - 1, 1}, {700, 1}}};
  std::uint8_t value = 1;
  for (const auto& [offset, bytes] : writes) {
    Buffer data(bytes, value++);
    const iovec from{data.data(), data.size()};
    REQUIRE(now(device.writev(offset, {&from, 1})).has_value());
    std::copy(data.begin(), data.end(), model.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  Buffer all(kDiskBytes);
  const iovec whole{all.data(), all.size()};
  REQUIRE(now(device.readv(0, {&whole, 1})).has_value());
  CHECK(all == model);
  REQUIRE(now(device.readv(999, {&vec, 1})).has_value());
  CHECK(std::equal(buffer.begin(), buffer.end(), model.begin() + 999));
  // What is in the file is none of it.
  const auto stored = raw->bytes().begin() + 2068480;
  CHECK_FALSE(std::equal(model.begin(), model.end(), stored));
  CHECK(now(device.readv(kDiskBytes - 1, {&vec, 1})).error().code == ErrorCode::kInvalid);
}
