// Encrypted qcow2 images in memory: what is in the file is no plain text, and everything else is as without.
#include "block/memory.hpp"
#include "block/qcow2/compact.hpp"
#include "block/qcow2/test_images.hpp"

using namespace whistler;
using namespace whistler::test;
using crypto::Secret;

namespace {

/// Everything in memory ends at once.
struct Inline final : Executor {
  void run_once(bool) override { FAIL("a task waits, though everything is in memory"); }
};
template <typename T>
T now(Task<T> task) {
  Inline executor;
  return sync_wait(executor, std::move(task));
}

/// A file in memory that grows, and that several devices may stand on.
class GrowingDisk final : public BlockDevice {
 public:
  explicit GrowingDisk(std::shared_ptr<Bytes> content) : content_(std::move(content)) {}
  [[nodiscard]] std::uint64_t size() const override { return content_->size(); }
  [[nodiscard]] bool read_only() const override { return false; }
  [[nodiscard]] std::string name() const override { return "memory"; }
  [[nodiscard]] Task<Result<void>> readv(std::uint64_t offset, IoVec to) override {
    for (const auto& piece : to) {
      for (std::size_t i = 0; i < piece.iov_len; ++i, ++offset) {
        static_cast<std::uint8_t*>(piece.iov_base)[i] = offset < size() ? (*content_)[offset] : 0;
      }
    }
    co_return Result<void>{};
  }
  [[nodiscard]] Task<Result<void>> writev(std::uint64_t offset, IoVec from, WriteFlags) override {
    content_->resize(std::max<std::size_t>(content_->size(), offset + iovec_bytes(from)));
    copy_from_iovec(std::span(*content_).subspan(offset, iovec_bytes(from)), from, 0);
    co_return Result<void>{};
  }
  [[nodiscard]] Task<Result<void>> flush() override { co_return Result<void>{}; }
  [[nodiscard]] Task<Result<void>> discard(std::uint64_t, std::uint64_t) override {
    co_return Result<void>{};
  }
  [[nodiscard]] Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t bytes,
                                                ZeroFlags) override {
    content_->resize(std::max<std::size_t>(content_->size(), offset + bytes));
    std::fill_n(content_->begin() + static_cast<std::ptrdiff_t>(offset), bytes, std::uint8_t{0});
    co_return Result<void>{};
  }
  [[nodiscard]] Task<Result<BlockStatus>> block_status(std::uint64_t, std::uint64_t bytes) override {
    co_return BlockStatus{.bytes = bytes, .data = true};
  }
  [[nodiscard]] Task<Result<void>> resize(std::uint64_t bytes) override {
    content_->resize(bytes);
    co_return Result<void>{};
  }
  [[nodiscard]] Task<Result<void>> close() override { co_return Result<void>{}; }

 private:
  std::shared_ptr<Bytes> content_;
};

struct Disk {
  std::shared_ptr<Bytes> content = std::make_shared<Bytes>();
  std::unique_ptr<qcow2::Image> image;

  explicit Disk(qcow2::CreateOptions options) {
    GrowingDisk file(content);
    const auto created = now(qcow2::create(file, options));
    INFO((created ? std::string() : created.error().message));
    REQUIRE(created.has_value());
  }
  Result<void> open(std::optional<std::string_view> password = "pw") {
    auto opened = now(qcow2::Image::open(std::make_unique<GrowingDisk>(content), {}));
    if (!opened) {
      return std::unexpected(opened.error());
    }
    image = std::move(*opened);
    if (password) {
      if (auto unlocked = now(image->unlock(Secret(*password))); !unlocked) {
        return unlocked;
      }
    }
    return now(image->prepare());
  }
  Result<void> write(std::uint64_t offset, const Bytes& bytes) {
    const iovec vec{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
    return now(image->writev(offset, {&vec, 1}));
  }
  Result<Bytes> read(std::uint64_t offset, std::size_t count) {
    Bytes bytes(count, 0xee);
    const iovec vec{bytes.data(), bytes.size()};
    auto done = now(image->readv(offset, {&vec, 1}));
    if (!done) {
      return std::unexpected(done.error());
    }
    return bytes;
  }
  bool contains(const Bytes& text) const {
    return std::search(content->begin(), content->end(), text.begin(), text.end()) != content->end();
  }
  void require_clean() {
    auto report = now(qcow2::check_image(*image, qcow2::Repair::kNone));
    REQUIRE(report.has_value());
    INFO(joined(report->messages));
    CHECK(report->corruptions == 0);
    CHECK(report->leaks == 0);
  }
};

qcow2::CreateOptions encrypted(qcow2::CryptMethod method, std::uint64_t size, std::uint64_t cluster = 65536) {
  return {.size = size,
          .cluster_size = cluster,
          .encryption = qcow2::EncryptionOptions{
              .method = method, .password = Secret("pw"), .luks = {.iteration_milliseconds = 0}}};
}

constexpr std::uint64_t kSize = 1024 * 1024;

}  // namespace

TEST_CASE("qcow2_encrypted_data_is_read_back_and_is_not_in_the_file", "[qcow2][crypto]") {
  const auto method = GENERATE(qcow2::CryptMethod::kLuks, qcow2::CryptMethod::kAes);
  const auto cluster = GENERATE(std::uint64_t{512}, std::uint64_t{4096}, std::uint64_t{65536});
  Disk disk(encrypted(method, kSize, cluster));
  REQUIRE(disk.open().has_value());
  disk.require_clean();
  Bytes model(kSize);
  std::uint32_t seed = 1;
  // Whole clusters, a sector, parts of sectors, and again over what is there.
  for (const auto& [offset, bytes] : std::initializer_list<std::pair<std::size_t, std::size_t>>{
           {0, 65536}, {70000, 3}, {130560, 1024}, {511, 2}, {kSize - 1, 1}, {200000, 100000}, {200001, 5}}) {
    const auto data = pattern(bytes, seed++);
    REQUIRE(disk.write(offset, data).has_value());
    std::copy(data.begin(), data.end(), model.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  CHECK(*disk.read(0, kSize) == model);
  CHECK(*disk.read(69999, 1000) == Bytes(model.begin() + 69999, model.begin() + 70999));
  CHECK_FALSE(disk.contains(pattern(64, 1)));
  REQUIRE(now(disk.image->flush()).has_value());
  disk.require_clean();
  REQUIRE(now(disk.image->close()).has_value());
  REQUIRE(disk.open().has_value());
  CHECK(*disk.read(0, kSize) == model);
}

TEST_CASE("qcow2_encrypted_zeroes_discard_and_resize_show_zeroes", "[qcow2][crypto]") {
  const auto method = GENERATE(qcow2::CryptMethod::kLuks, qcow2::CryptMethod::kAes);
  Disk disk(encrypted(method, kSize));
  REQUIRE(disk.open().has_value());
  REQUIRE(disk.write(0, pattern(300000, 7)).has_value());
  REQUIRE(now(disk.image->write_zeroes(1000, 200000)).has_value());
  CHECK(*disk.read(1000, 200000) == Bytes(200000));
  CHECK(*disk.read(0, 1000) == pattern(1000, 7));
  REQUIRE(disk.write(70000, Bytes(5, 9)).has_value());
  CHECK(*disk.read(65536, 4464) == Bytes(4464));
  REQUIRE(now(disk.image->resize(250000)).has_value());
  REQUIRE(now(disk.image->resize(kSize * 2)).has_value());
  CHECK(*disk.read(250368, 100000) == Bytes(100000));
  REQUIRE(now(disk.image->flush()).has_value());
  disk.require_clean();
}

TEST_CASE("qcow2_wrong_or_no_password_opens_no_encrypted_data", "[qcow2][crypto]") {
  Disk disk(encrypted(qcow2::CryptMethod::kLuks, kSize));
  CHECK(disk.open("other").error().message == "Invalid password, cannot unlock any keyslot");
  REQUIRE(disk.open(std::nullopt).has_value());
  CHECK(*disk.read(0, 512) == Bytes(512));  // nothing is there, so nothing needs a key
  CHECK(disk.write(0, Bytes(512, 1)).error().code == ErrorCode::kPermission);
  disk.require_clean();
  CHECK(disk.image->luks_header()->uuid.size() == 36);
}

TEST_CASE("qcow2_overlay_with_encryption_copies_what_lies_behind", "[qcow2][crypto]") {
  const auto method = GENERATE(qcow2::CryptMethod::kLuks, qcow2::CryptMethod::kAes);
  const bool subclusters = GENERATE(false, true);
  auto options = encrypted(method, kSize);
  options.extended_l2 = subclusters;
  Disk disk(options);
  REQUIRE(disk.open().has_value());
  auto backing = std::make_unique<MemoryBlockDevice>(kSize);
  auto model = pattern(kSize, 3);
  backing->bytes() = model;
  disk.image->set_backing(std::move(backing));
  REQUIRE(disk.write(1000, Bytes(3, 1)).has_value());
  REQUIRE(disk.write(65536 + 2048, Bytes(1024, 2)).has_value());
  std::fill_n(model.begin() + 1000, 3, std::uint8_t{1});
  std::fill_n(model.begin() + 65536 + 2048, 1024, std::uint8_t{2});
  CHECK(*disk.read(0, kSize) == model);
}

TEST_CASE("qcow2_encryption_and_compression_exclude_each_other", "[qcow2][crypto]") {
  Disk disk(encrypted(qcow2::CryptMethod::kLuks, kSize));
  REQUIRE(disk.open().has_value());
  Bytes cluster(65536);
  const iovec vec{cluster.data(), cluster.size()};
  CHECK(now(disk.image->write_compressed(0, {&vec, 1})).error().message ==
        "Compression and encryption not supported at the same time");
}

TEST_CASE("qcow2_keys_are_amended_and_the_image_stays_clean", "[qcow2][crypto]") {
  Disk disk(encrypted(qcow2::CryptMethod::kLuks, kSize, 512));
  REQUIRE(disk.open().has_value());
  REQUIRE(disk.write(0, pattern(5000, 4)).has_value());
  REQUIRE(now(disk.image->amend_encryption(
                  {.activate = true, .new_password = Secret("two"), .iteration_milliseconds = 0}))
              .has_value());
  REQUIRE(now(disk.image->amend_encryption({.old_password = Secret("pw")})).has_value());
  REQUIRE(now(disk.image->close()).has_value());
  CHECK_FALSE(disk.open().has_value());
  REQUIRE(disk.open("two").has_value());
  CHECK(*disk.read(0, 5000) == pattern(5000, 4));
  disk.require_clean();
}

TEST_CASE("qcow2_compacted_luks_image_reads_the_same_from_its_new_places", "[qcow2][crypto]") {
  Disk disk(encrypted(qcow2::CryptMethod::kLuks, kSize, 4096));
  REQUIRE(disk.open().has_value());
  REQUIRE(disk.write(0, pattern(kSize, 6)).has_value());
  REQUIRE(now(disk.image->discard(0, kSize / 2)).has_value());
  const auto compacted = now(qcow2::compact_image(*disk.image, {}));
  REQUIRE(compacted.has_value());
  CHECK(compacted->moved > 0);
  CHECK(*disk.read(0, kSize / 2) == Bytes(kSize / 2));
  const auto whole = pattern(kSize, 6);
  CHECK(*disk.read(kSize / 2, kSize / 2) == Bytes(whole.begin() + kSize / 2, whole.end()));
  disk.require_clean();
}

TEST_CASE("qcow2_hostile_encryption_fields_are_refused", "[qcow2][crypto][hostile]") {
  Disk disk(encrypted(qcow2::CryptMethod::kLuks, kSize));
  auto& bytes = *disk.content;
  const Bytes good = bytes;
  const auto message = [&] {
    const auto opened = disk.open(std::nullopt);
    bytes = good;
    return opened ? std::string() : opened.error().message;
  };
  const auto ends_with = [](const std::string& end) { return Catch::Matchers::EndsWith(end); };
  store_be<std::uint32_t>(&bytes[32], 3);
  CHECK_THAT(message(), ends_with("Unsupported encryption method 3"));
  store_be<std::uint32_t>(&bytes[32], 0x102);
  CHECK_THAT(message(), ends_with("Unsupported encryption method 255"));
  store_be<std::uint32_t>(&bytes[32], 1);
  CHECK_THAT(message(), ends_with("CRYPTO header extension only expected with LUKS encryption method"));
  // The first extension is the one of encryption.
  REQUIRE(load_be<std::uint32_t>(&bytes[112]) == qcow2::kCryptoExtension);
  store_be<std::uint32_t>(&bytes[112], 0x12345678);
  CHECK_THAT(message(), ends_with("Missing CRYPTO header for crypt method 2"));
  store_be<std::uint32_t>(&bytes[116], 15);
  CHECK_THAT(message(), ends_with("CRYPTO header extension size 15, but expected size 16"));
  store_be<std::uint64_t>(&bytes[120], 0x40001);
  CHECK_THAT(message(),
             ends_with("Encryption header offset '262145' is not a multiple of cluster size '65536'"));
  store_be<std::uint64_t>(&bytes[120], 0);
  CHECK_THAT(message(), Catch::Matchers::Contains("the encryption header"));
  store_be<std::uint64_t>(&bytes[120], std::uint64_t{1} << 62);
  CHECK_THAT(message(), Catch::Matchers::Contains("is not inside the file"));
  store_be<std::uint64_t>(&bytes[128], ~std::uint64_t{0});
  CHECK_THAT(message(), Catch::Matchers::Contains("is not inside the file"));
  store_be<std::uint64_t>(&bytes[128], 65536);
  CHECK_THAT(message(), Catch::Matchers::Contains("but its key material needs 2068480"));
  store_be<std::uint64_t>(&bytes[120], 0x10000);
  CHECK_THAT(message(), ends_with("Volume is not in LUKS format"));
  CHECK(message().empty());
}
