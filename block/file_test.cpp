#include "block/file.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <random>
#include <thread>
#include <utility>

#include "base/unique_fd.hpp"
#include "block/file_lock.hpp"
#include "block/test_support.hpp"

using namespace whistler;
using namespace whistler::test;

namespace {

std::unique_ptr<FileDevice> open_file(Ring& ring, const FileOptions& options) {
  auto device = FileDevice::open(ring, options);
  INFO((device ? std::string() : device.error().message));
  REQUIRE(device.has_value());
  return std::move(*device);
}

std::string open_error(Ring& ring, const FileOptions& options) {
  auto device = FileDevice::open(ring, options);
  REQUIRE_FALSE(device.has_value());
  return device.error().message;
}

}  // namespace

TEST_CASE("file_reads_back_what_was_written_in_every_cache_mode", "[file]") {
  const auto mode = GENERATE(CacheMode::kWriteback, CacheMode::kNone, CacheMode::kWritethrough,
                             CacheMode::kDirectsync, CacheMode::kUnsafe);
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(8192, 1));
  const auto ring = make_ring();
  const auto device = open_file(*ring, {.path = directory.file("f"), .cache = mode});
  const auto data = pattern(5000, 1);
  REQUIRE(write(*ring, *device, 777, data, {.fua = true}).has_value());
  REQUIRE(sync_wait(*ring, device->flush()).has_value());
  CHECK(read(*ring, *device, 777, data.size()) == data);
  CHECK(read(*ring, *device, 776, 1) == Bytes{1});
  CHECK(read(*ring, *device, 5777, 1) == Bytes{1});
  CHECK(file_content(directory.file("f")).size() == 8192);
}

TEST_CASE("file_write_beyond_the_end_extends_and_reads_beyond_it_are_zero", "[file]") {
  const auto mode = GENERATE(CacheMode::kWriteback, CacheMode::kNone);
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(100, 1));
  const auto ring = make_ring();
  const auto device = open_file(*ring, {.path = directory.file("f"), .cache = mode});
  CHECK(read(*ring, *device, 99, 3) == Bytes{1, 0, 0});
  CHECK(read(*ring, *device, 1 << 20, 2) == Bytes{0, 0});
  REQUIRE(write(*ring, *device, 9001, Bytes(10, 2)).has_value());
  CHECK(device->size() == 9011);
  CHECK(read(*ring, *device, 9000, 3) == Bytes{0, 2, 2});
  CHECK(std::filesystem::file_size(directory.file("f")) == 9011);
}

TEST_CASE("file_unaligned_direct_writes_side_by_side_keep_their_neighbours", "[file]") {
  const TemporaryDirectory directory;
  constexpr std::size_t kSize = 64 * 1024;
  make_file(directory.file("f"), Bytes(kSize));
  const auto ring = make_ring();
  const auto device = open_file(*ring, {.path = directory.file("f"), .cache = CacheMode::kNone});
  constexpr std::size_t kPiece = 100;
  const auto data = pattern(kSize, 3);
  std::size_t ended = 0;
  std::vector<iovec> vecs;
  for (std::size_t at = 0; at + kPiece <= kSize; at += kPiece) {
    vecs.push_back({const_cast<std::uint8_t*>(&data[at]), kPiece});
  }
  for (std::size_t i = 0; i < vecs.size(); ++i) {
    spawn(device->writev(i * kPiece, {&vecs[i], 1}),
          [&](Result<void> result) { ended += result.has_value() ? 1 : 0; });
  }
  while (ring->in_flight() != 0) {
    ring->run_once(true);
  }
  REQUIRE(ended == vecs.size());
  const auto content = file_content(directory.file("f"));
  REQUIRE(content.size() == kSize);
  CHECK(std::equal(content.begin(), content.begin() + static_cast<std::ptrdiff_t>(vecs.size() * kPiece),
                   data.begin()));
}

TEST_CASE("file_that_is_expected_to_grow_is_longer_on_the_host_only_until_it_is_closed", "[file]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("f");
  make_file(path, pattern(100, 1));
  const auto ring = make_ring();
  const auto device = open_file(*ring, {.path = path, .cache = CacheMode::kNone});
  device->expect_growth();
  const auto data = pattern(300'000, 2);
  REQUIRE(write(*ring, *device, 8192, data).has_value());  // its end is not aligned
  CHECK(device->size() == 8192 + data.size());
  CHECK(std::filesystem::file_size(path) >= 16 * 1024 * 1024);
  CHECK(read(*ring, *device, device->size() - 1, 3) == Bytes{data.back(), 0, 0});
  REQUIRE(sync_wait(*ring, device->write_zeroes(device->size(), 5000, {.may_unmap = true})).has_value());
  CHECK(std::filesystem::file_size(path) >= 16 * 1024 * 1024);
  const auto end = 8192 + data.size() + 5000;
  SECTION("closed") { REQUIRE(sync_wait(*ring, device->close()).has_value()); }
  SECTION("read-only") { REQUIRE(sync_wait(*ring, device->set_read_only(true)).has_value()); }
  SECTION("resized") { REQUIRE(sync_wait(*ring, device->resize(end)).has_value()); }
  CHECK(std::filesystem::file_size(path) == end);
  auto expected = pattern(100, 1);
  expected.resize(8192);
  expected.insert(expected.end(), data.begin(), data.end());
  expected.resize(end);
  CHECK(file_content(path) == expected);
}

TEST_CASE("file_that_grows_under_many_direct_writes_keeps_each", "[file]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("f");
  make_file(path, Bytes());
  const auto ring = make_ring();
  auto device = open_file(*ring, {.path = path, .cache = CacheMode::kNone});
  device->expect_growth();
  constexpr std::size_t kPiece = 1'000'000;  // aligned nowhere but at the first
  constexpr std::size_t kCount = 40;         // three steps of growth
  const auto data = pattern(kPiece * kCount, 5);
  std::vector<iovec> vecs(kCount);
  std::size_t ended = 0;
  for (std::size_t i = 0; i < kCount; ++i) {
    const auto place = (i * 7 + 3) % kCount;
    vecs[i] = {const_cast<std::uint8_t*>(&data[place * kPiece]), kPiece};
    spawn(device->writev(place * kPiece, {&vecs[i], 1}),
          [&](Result<void> result) { ended += result.has_value() ? 1 : 0; });
  }
  while (ring->in_flight() != 0) {
    ring->run_once(true);
  }
  REQUIRE(ended == kCount);
  REQUIRE(sync_wait(*ring, device->close()).has_value());
  CHECK(file_content(path) == data);
}

TEST_CASE("file_lengthened_by_zeroes_keeps_what_is_written_behind_them_meanwhile", "[file]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("f");
  make_file(path, Bytes());
  const auto ring = make_ring();
  auto device = open_file(*ring, {.path = path});
  const auto data = pattern(1 << 20, 3);
  const iovec vec{const_cast<std::uint8_t*>(data.data()), data.size()};
  unsigned lost = 0;
  for (int round = 0; round < 20; ++round) {  // who is first is a matter of chance
    REQUIRE(sync_wait(*ring, device->resize(0)).has_value());
    std::size_t ended = 0;
    const auto note = [&](const Result<void>& result) { ended += result.has_value() ? 1 : 0; };
    spawn(device->write_zeroes(0, 1 << 20, {.may_unmap = true}), note);
    spawn(device->writev(8 << 20, {&vec, 1}), note);
    while (ring->in_flight() != 0) {
      ring->run_once(true);
    }
    REQUIRE(ended == 2);
    lost += read(*ring, *device, 8 << 20, data.size()) == data ? 0 : 1;
  }
  CHECK(lost == 0);
}

TEST_CASE("file_on_a_disk_without_room_for_a_step_grows_write_by_write", "[file]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("f");
  make_file(path, Bytes());
  const auto ring = make_ring();
  const auto device = open_file(*ring, {.path = path, .cache = CacheMode::kNone});
  device->expect_growth();
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1024 * 1024, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const auto fits = write(*ring, *device, 0, Bytes(65536, 7));
  const auto does_not = write(*ring, *device, 2 * 1024 * 1024, Bytes(4096, 7));
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  CHECK(fits.has_value());
  CHECK_FALSE(does_not.has_value());
  CHECK(device->size() == 65536);
  CHECK(std::filesystem::file_size(path) == 65536);
}

TEST_CASE("file_filled_by_a_tool_has_the_length_and_the_space_of_what_was_written", "[file]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("f");
  make_file(path, Bytes());
  const auto ring = make_ring();
  const auto device = open_file(*ring, {.path = path, .inline_writes = true});
  constexpr std::size_t kPiece = 512 * 1024;
  constexpr std::size_t kCount = 24;
  const auto data = pattern(kPiece * kCount, 4);
  std::vector<iovec> vecs(kCount);
  std::size_t ended = 0;
  for (std::size_t i = 0; i < kCount; ++i) {  // all in flight at once, the second half behind a hole
    vecs[i] = {const_cast<std::uint8_t*>(&data[i * kPiece]), kPiece};
    const auto hole = i < kCount / 2 ? 0 : kPiece;
    spawn(device->writev(i * kPiece + hole, {&vecs[i], 1}, {.fresh = true}),
          [&](Result<void> result) { ended += result.has_value() ? 1 : 0; });
  }
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (SpaceAhead::helps(file.get())) {
    CHECK(std::filesystem::file_size(path) > data.size() + kPiece);
  }
  while (ring->in_flight() != 0) {
    ring->run_once(true);
  }
  REQUIRE(ended == kCount);
  CHECK(device->size() == data.size() + kPiece);
  REQUIRE(sync_wait(*ring, device->close()).has_value());
  auto expected = data;
  expected.insert(expected.begin() + kPiece * kCount / 2, kPiece, 0);
  CHECK(file_content(path) == expected);
  struct stat status{};
  REQUIRE(::fstat(file.get(), &status) == 0);
  CHECK(static_cast<std::uint64_t>(status.st_blocks) * 512 < data.size() + kPiece / 2);
}

TEST_CASE("file_keeps_the_space_that_is_asked_for_while_a_tool_fills_it", "[file]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("f");
  make_file(path, Bytes());
  const auto ring = make_ring();
  const auto device = open_file(*ring, {.path = path, .inline_writes = true});
  constexpr std::uint64_t kBytes = 4 * 1024 * 1024;
  REQUIRE(write(*ring, *device, 0, pattern(kBytes, 1), {.fresh = true}).has_value());
  REQUIRE(sync_wait(*ring, device->preallocate(kBytes, kBytes, Preallocation::kFalloc)).has_value());
  REQUIRE(sync_wait(*ring, device->close()).has_value());
  struct stat status{};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK(status.st_size == 2 * kBytes);
  CHECK(static_cast<std::uint64_t>(status.st_blocks) * 512 >= 2 * kBytes);
}

TEST_CASE("file_zeroed_and_discarded_ranges_read_zero_and_show_as_holes", "[file]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), pattern(1 << 20, 1));
  const auto ring = make_ring();
  const auto device = open_file(*ring, {.path = directory.file("f")});
  REQUIRE(sync_wait(*ring, device->discard(65536, 65536)).has_value());
  REQUIRE(sync_wait(*ring, device->write_zeroes(300000, 5)).has_value());
  REQUIRE(sync_wait(*ring, device->write_zeroes(1 << 20, 4096, {.may_unmap = false})).has_value());
  CHECK(read(*ring, *device, 65536, 65536) == Bytes(65536));
  CHECK(read(*ring, *device, 300000, 5) == Bytes(5));
  CHECK(device->size() == (1 << 20) + 4096);
  const auto hole = sync_wait(*ring, device->block_status(65536, 1 << 19));
  REQUIRE(hole.has_value());
  CHECK(hole->zero);
  CHECK(hole->bytes == 65536);
  const auto data = sync_wait(*ring, device->block_status(0, 1 << 19));
  CHECK(data->data);
  CHECK(data->bytes == 65536);
}

TEST_CASE("file_scattered_request_of_thousands_of_pieces_is_done_whole", "[file]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes());
  const auto ring = make_ring();
  const auto device = open_file(*ring, {.path = directory.file("f")});
  auto data = pattern(5000, 9);
  std::vector<iovec> vec;
  for (auto& byte : data) {
    vec.push_back({&byte, 1});
  }
  REQUIRE(sync_wait(*ring, device->writev(3, vec)).has_value());
  const auto written = data;
  data.assign(data.size(), 0);
  REQUIRE(sync_wait(*ring, device->readv(3, vec)).has_value());
  CHECK(data == written);
}

TEST_CASE("file_that_cannot_be_opened_is_named_with_the_reason", "[file]") {
  const TemporaryDirectory directory;
  const auto ring = make_ring();
  CHECK(open_error(*ring, {.path = directory.file("none")}) ==
        directory.file("none") + ": cannot be opened for writing: No such file or directory");
  CHECK(open_error(*ring, {.path = directory.file(""), .read_only = true}) ==
        directory.file("") + ": is a directory, not a disk image");
  REQUIRE(::mkfifo(directory.file("fifo").c_str(), 0600) == 0);
  CHECK(open_error(*ring, {.path = directory.file("fifo"), .read_only = true}) ==
        directory.file("fifo") + ": is neither a file nor a block device");
}

TEST_CASE("file_read_only_refuses_every_change", "[file]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(512));
  const auto ring = make_ring();
  const auto device = open_file(*ring, {.path = directory.file("f"), .read_only = true});
  CHECK(write(*ring, *device, 0, Bytes(1)).error().code == ErrorCode::kPermission);
  CHECK(sync_wait(*ring, device->discard(0, 1)).error().code == ErrorCode::kPermission);
  CHECK(sync_wait(*ring, device->write_zeroes(0, 1)).error().code == ErrorCode::kPermission);
  CHECK(sync_wait(*ring, device->resize(1)).error().code == ErrorCode::kPermission);
  CHECK(sync_wait(*ring, device->flush()).has_value());
}

TEST_CASE("file_error_of_the_host_names_file_offset_and_reason", "[file]") {
  const auto ring = make_ring();
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(512));
  const auto device = open_file(*ring, {.path = directory.file("f")});
  const auto error = write(*ring, *device, std::uint64_t{1} << 62, Bytes(1)).error();
  CHECK(error.code == ErrorCode::kNoSpace);  // EFBIG
  CHECK(error.message.starts_with(directory.file("f") +
                                  ": cannot write 1 bytes at offset 4611686018427387904"));
}

TEST_CASE("file_lock_refuses_a_second_writer_and_names_the_first", "[file]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(512));
  const auto ring = make_ring();
  const auto first = open_file(*ring, {.path = directory.file("f")});
  const auto message = open_error(*ring, {.path = directory.file("f")});
  CHECK(message.find("the image is in use: pid " + std::to_string(::getpid())) != std::string::npos);
  CHECK(FileDevice::open(*ring, {.path = directory.file("f"), .read_only = true}).error().code ==
        ErrorCode::kBusy);
  CHECK(FileDevice::open(*ring, {.path = directory.file("f"), .read_only = true, .force_share = true})
            .has_value());
  CHECK(FileDevice::open(*ring, {.path = directory.file("f"), .lock = false}).has_value());
}

namespace {

/// A locked file that no process has open any more: its descriptor is on its way through a socket.
struct LockInFlight {
  int ends[2] = {-1, -1};
  explicit LockInFlight(const std::string& path) {
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    const UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    REQUIRE(lock_image(file.get(), path, kConsistentRead | kWrite, kWrite));
    char byte = 0;
    iovec data{&byte, 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    auto* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = file.get();
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    REQUIRE(::sendmsg(ends[0], &message, 0) == 1);
  }
  void end() {
    for (auto& end : ends) {
      ::close(std::exchange(end, -1));
    }
  }
  ~LockInFlight() { end(); }
};

}  // namespace

TEST_CASE("lock_that_no_process_holds_any_more_is_waited_for", "[file]") {
  TemporaryDirectory directory;
  const auto path = directory.file("f");
  make_file(path, Bytes(512));
  LockInFlight dead(path);
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  const auto busy =
      lock_image(file.get(), path, kConsistentRead | kWrite, kWrite, std::chrono::milliseconds(100));
  REQUIRE_FALSE(busy);
  CHECK(busy.error().code == ErrorCode::kBusy);
  std::thread kernel([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    dead.end();
  });
  const auto ring = make_ring();
  const auto device = FileDevice::open(*ring, {.path = path});
  kernel.join();
  INFO((device ? std::string() : device.error().message));
  CHECK(device);
}

TEST_CASE("lock_that_a_living_process_holds_is_not_waited_for", "[file]") {
  TemporaryDirectory directory;
  const auto path = directory.file("f");
  make_file(path, Bytes(512));
  const auto ring = make_ring();
  const auto first = FileDevice::open(*ring, {.path = path});
  REQUIRE(first);
  const auto begun = std::chrono::steady_clock::now();
  CHECK_FALSE(FileDevice::open(*ring, {.path = path}));
  CHECK(std::chrono::steady_clock::now() - begun < std::chrono::seconds(1));
}

TEST_CASE("file_lock_lets_many_readers_in", "[file]") {
  const TemporaryDirectory directory;
  make_file(directory.file("f"), Bytes(512));
  const auto ring = make_ring();
  const auto first = open_file(*ring, {.path = directory.file("f"), .read_only = true});
  CHECK(FileDevice::open(*ring, {.path = directory.file("f"), .read_only = true}).has_value());
  CHECK(FileDevice::open(*ring, {.path = directory.file("f")}).error().code == ErrorCode::kBusy);
}

TEST_CASE("file_lock_keeps_qemu_off_and_is_kept_off_by_qemu", "[file][qemu]") {
  if (!have_qemu_tools()) {
    WARN("qemu-img and qemu-io are not installed: not tested");
    return;
  }
  const TemporaryDirectory directory;
  const auto path = directory.file("f.qcow2");
  REQUIRE(run("qemu-img create -f qcow2 " + path + " 1M").status == 0);
  const auto ring = make_ring();
  {
    const auto device = open_file(*ring, {.path = path});
    const auto refused = run("qemu-io -f qcow2 -c 'write 0 512' " + path);
    CHECK(refused.status != 0);
    CHECK(refused.output.find("lock") != std::string::npos);
    CHECK(run("qemu-img info -U " + path).status == 0);
  }
  // qemu-io answers a command only once it has the image open; then it waits for its standard input.
  std::FILE* qemu =
      ::popen(("qemu-io -f qcow2 " + path + " > " + directory.file("out") + " 2>&1").c_str(), "w");
  REQUIRE(qemu != nullptr);
  std::fputs("length\n", qemu);
  std::fflush(qemu);
  while (file_content(directory.file("out")).size() < 20) {
    ::usleep(1000);
  }
  const auto message = open_error(*ring, {.path = path});
  CHECK(message.find("(qemu-io) is writing to it") ==
        std::string::npos);  // the first conflict found is what it withholds
  CHECK(message.find("(qemu-io) lets nobody else write to it") != std::string::npos);
  ::pclose(qemu);
  CHECK(FileDevice::open(*ring, {.path = path}).has_value());
}
