// Clients that ask for anything, many at once, while the guest writes: whatever comes of it, each gets its
// answer, and the disk stays what the guest has made of it. WHISTLER_SEED=N repeats a run.
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "block/jobs/targets.hpp"
#include "vmm/monitor/control_fake.hpp"
#include "vmm/test_folder.hpp"
#include "vmm/unix_socket.hpp"

using namespace whistler;
using namespace whistler::qmp;

namespace {

constexpr std::string_view kDrives = R"(
  "drives": [ { "id": "hda", "interface": "ide", "bus": 0, "unit": 0, "media": "disk", "file": "hda.qcow2",
                "format": "qcow2" },
              { "id": "hdb", "interface": "ide", "bus": 0, "unit": 1, "media": "disk", "file": "hdb.raw",
                "format": "raw" },
              { "id": "cd0", "interface": "ide", "bus": 1, "unit": 0, "media": "cdrom", "format": "raw" } ])";
constexpr std::uint64_t kDisk = 512 << 10;
constexpr std::uint64_t kSector = 512;
constexpr std::chrono::seconds kTime{8};
constexpr std::size_t kMostAsked = 6;  // that wait for their answers

using Words = std::vector<std::string>;

struct Ask {
  std::string command;
  Words keys;
};

const std::vector<Ask> kAsks = {
    {"blockdev-snapshot-sync", {"device", "node-name", "snapshot-file", "format"}},
    {"blockdev-snapshot-internal-sync", {"device", "name"}},
    {"blockdev-snapshot-delete-internal-sync", {"device", "name", "id"}},
    {"drive-backup",
     {"device", "job-id", "target", "format", "sync", "mode", "speed", "compress", "bitmap", "bitmap-mode",
      "on-source-error", "on-target-error", "auto-finalize", "auto-dismiss"}},
    {"blockdev-backup", {"device", "job-id", "node:target", "sync", "speed", "compress", "auto-finalize"}},
    {"drive-mirror", {"device", "job-id", "target", "format", "sync", "speed", "auto-dismiss"}},
    {"block-commit", {"device", "job-id", "top", "base", "top-node", "base-node", "speed", "on-error"}},
    {"block-stream", {"device", "job-id", "base", "base-node", "bottom", "speed", "on-error"}},
    {"block-dirty-bitmap-add", {"on:node", "name", "granularity", "disabled"}},
    {"block-dirty-bitmap-remove", {"on:node", "name"}},
    {"block-dirty-bitmap-clear", {"on:node", "name"}},
    {"block-dirty-bitmap-merge", {"on:node", "name:target", "bitmaps"}},
    {"blockdev-add", {"driver", "node-name", "file"}},
    {"blockdev-del", {"node-name"}},
    {"eject", {"device", "force"}},
    {"blockdev-change-medium", {"device", "filename", "format", "force", "read-only-mode"}},
    {"blockdev-open-tray", {"id", "force"}},
    {"blockdev-close-tray", {"id"}},
    {"blockdev-remove-medium", {"id"}},
    {"block_resize", {"device", "size"}},
    {"block-job-pause", {"job:device"}},
    {"block-job-resume", {"job:device"}},
    {"block-job-cancel", {"job:device", "force"}},
    {"block-job-complete", {"job:device"}},
    {"block-job-set-speed", {"job:device", "speed"}},
    {"job-pause", {"job:id"}},
    {"job-resume", {"job:id"}},
    {"job-cancel", {"job:id"}},
    {"job-complete", {"job:id"}},
    {"job-finalize", {"job:id"}},
    {"job-dismiss", {"job:id"}},
    {"query-block", {}},
    {"query-blockstats", {}},
    {"query-block-jobs", {}},
    {"query-jobs", {}},
    {"query-named-block-nodes", {"flat"}},
};

class Client {
 public:
  Client(unsigned seed, const TestFolder& folder) : random_(seed) {
    files_ = {"hda.qcow2", "hdb.raw", "one", "two", "three", "four"};
    for (auto& file : files_) {
      file = folder / file;
    }
    files_.emplace_back("/nowhere/at/all");
    files_.push_back("nbd+unix:///?socket=" + (folder / "silent"));
    files_.emplace_back("nbd://");
  }

  Request any() {
    if (one_in(12)) {
      return {.command = "transaction", .arguments = transaction()};
    }
    const auto& ask = kAsks[below(kAsks.size())];
    return {.command = ask.command, .arguments = arguments(ask)};
  }
  std::size_t below(std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random_);
  }
  bool one_in(std::size_t n) { return below(n) == 0; }

 private:
  const std::string& of(const Words& words) { return words[below(words.size())]; }

  Json transaction() {
    static const Words kActions = {"blockdev-snapshot-sync", "blockdev-snapshot-internal-sync",
                                   "drive-backup",           "blockdev-backup",
                                   "block-dirty-bitmap-add", "block-dirty-bitmap-clear"};
    Json actions = Json::array();
    for (std::size_t n = 1 + below(3); n != 0; --n) {
      const auto& type = of(kActions);
      const auto ask = std::ranges::find(kAsks, type, &Ask::command);
      actions.push_back({{"type", type}, {"data", arguments(*ask)}});
    }
    if (one_in(10)) {
      actions.push_back({{"type", "abort"}, {"data", Json::object()}});
    }
    Json all = {{"actions", std::move(actions)}};
    if (one_in(3)) {
      all["properties"] = {{"completion-mode", one_in(2) ? "grouped" : "individual"}};
    }
    return all;
  }

  Json arguments(const Ask& ask) {
    Json all = Json::object();
    for (const auto& key : ask.keys) {
      const auto colon = key.find(':');
      const auto name = colon == std::string::npos ? key : key.substr(colon + 1);
      const bool needed =
          &key == ask.keys.data() || key == "target" || key == "sync" || colon != std::string::npos;
      if (one_in(50)) {
        all[name] = junk();
      } else if (needed ? !one_in(30) : one_in(3)) {
        all[name] = value(colon == std::string::npos ? key : key.substr(0, colon));
      }
    }
    return all;
  }

  Json junk() {
    switch (below(8)) {
      case 0: return nullptr;
      case 1: return -1;
      case 2: return std::int64_t{1} << 62;
      case 3: return ~std::uint64_t{0};
      case 4: return 1.5;
      case 5: return Json::array({Json::object()});
      case 6: return {{"driver", "raw"}};
      default: return std::string(below(300), '/');
    }
  }

  Json value(const std::string& key) {
    static const Words kDevices = {"hda", "hda", "hda", "hdb", "hdb", "cd0", "cd0", "no"};
    static const Words kJobs = {"hda", "hdb", "j1", "j2", "-"};
    static const Words kNodes = {"n1", "n2", "hda", "hdb", "#hda.1", "#hda.2", "#hdb.1", "x"};
    static const Words kFormats = {"qcow2", "qcow2", "raw", "luks", "vmdk", "what"};
    static const Words kSyncs = {"full", "full", "top", "none", "bitmap", "incremental", "some"};
    static const Words kBitmapModes = {"on-success", "never", "always"};
    static const Words kPolicies = {"report", "ignore", "stop", "enospc"};
    if (key == "device" || key == "id" || key == "on") {
      return of(kDevices);
    }
    if (key == "job" || key == "job-id") {
      return of(kJobs);
    }
    if (key == "target" || key == "filename" || key == "snapshot-file" || key == "top" || key == "base") {
      return of(files_);
    }
    if (key.ends_with("node") || key == "node-name" || key == "bottom") {
      return of(kNodes);
    }
    if (key == "format" || key == "driver") {
      return of(kFormats);
    }
    if (key == "file") {
      return {{"driver", one_in(5) ? "nbd" : "file"}, {"filename", of(files_)}};
    }
    if (key == "sync") {
      return of(kSyncs);
    }
    if (key == "mode") {
      return one_in(2) ? "existing" : "absolute-paths";
    }
    if (key == "read-only-mode") {
      return one_in(2) ? "retain" : "read-write";
    }
    if (key.ends_with("error")) {
      return of(kPolicies);
    }
    if (key == "name" || key == "bitmap") {
      return one_in(2) ? "s1" : "s2";
    }
    if (key == "bitmaps") {
      return {"s1", "s2"};
    }
    if (key == "bitmap-mode") {
      return of(kBitmapModes);
    }
    if (key == "granularity") {
      return one_in(2) ? 4096 : 1 << 17;
    }
    if (key == "speed") {
      return one_in(2) ? 0 : 4 << 20;
    }
    if (key == "size") {
      return kDisk + below(8) * 65536;
    }
    return one_in(2);  // force, compress, auto-finalize, ...
  }

  std::mt19937 random_;
  Words files_;
};

/// A disk as the guest knows it.
struct GuestDisk {
  std::size_t drive;
  std::vector<char> content = std::vector<char>(kDisk);

  void write(ControlFake& control, Client& chance) {
    const auto at = chance.below(kDisk / kSector) * kSector;
    std::vector<char> bytes(kSector * (1 + chance.below(16)), static_cast<char>('a' + chance.below(26)));
    bytes.resize(std::min<std::size_t>(bytes.size(), kDisk - at));
    std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<std::ptrdiff_t>(at));
    const iovec piece{bytes.data(), bytes.size()};
    std::optional<Result<void>> done;
    {
      const std::scoped_lock lock(control.pc().lock());
      spawn(control.pc().drives()[drive]->device()->writev(at, {&piece, 1}),
            [&](Result<void> result) { done = std::move(result); });
    }
    while (!done) {
      control.pc().loop().run_once(-1);
    }
    INFO((done->has_value() ? std::string() : done->error().message));
    REQUIRE(done->has_value());
  }

  void check(const std::string& file, const std::string& format) const {
    const auto ring = Ring::create();
    auto image = open_image(**ring, {.path = file, .format = format, .read_only = true});
    INFO((image ? file : image.error().message));
    REQUIRE(image);
    std::vector<char> found(kDisk);
    const iovec piece{found.data(), found.size()};
    REQUIRE(sync_wait(**ring, (*image)->readv(0, {&piece, 1})));
    REQUIRE(sync_wait(**ring, (*image)->close()));
    REQUIRE((found == content));
  }
};

}  // namespace

TEST_CASE("random_commands_harm_neither_machine_nor_disks", "[monitor]") {
  const auto* wanted = std::getenv("WHISTLER_SEED");
  const auto seed = wanted != nullptr ? static_cast<unsigned>(std::atoi(wanted)) : std::random_device{}();
  INFO("WHISTLER_SEED=" << seed);
  TestFolder folder;
  const auto silent = listen_unix(folder / "silent");
  REQUIRE(silent);
  {
    const auto ring = Ring::create();
    for (const auto& [name, format] : {std::pair("hda.qcow2", "qcow2"), std::pair("hdb.raw", "raw")}) {
      NewFile file{.path = folder / name, .format = format, .size = kDisk};
      REQUIRE(sync_wait(**ring, make_image(**ring, file)));
    }
  }
  auto control = ControlFake::make(kDrives, folder / "machine.json");
  control->pc().pending().set_patience(std::chrono::milliseconds(20));
  Client client(seed, folder);
  std::array<GuestDisk, 2> disks = {GuestDisk{.drive = 0}, GuestDisk{.drive = 1}};
  std::size_t asked = 0;
  std::size_t answered = 0;
  std::size_t well = 0;
  for (const auto end = std::chrono::steady_clock::now() + kTime; std::chrono::steady_clock::now() < end;) {
    if (asked - answered < kMostAsked) {
      const auto request = client.any();
      ++asked;
      execute(*control, request, [&](const Answer<Json>& answer) {
        ++answered;
        well += answer ? 1 : 0;
        CHECK((answer || !answer.error().description.empty()));
      });
    }
    if (client.one_in(3)) {
      disks[client.below(2)].write(*control, client);
    }
    control->pc().loop().run_once(client.one_in(4) ? 1'000'000 : 0);
    control->events.clear();
  }
  std::array<std::pair<std::string, std::string>, 2> files;
  {
    const std::scoped_lock lock(control->pc().lock());
    control->pc().pending().end_all();
    control->pc().jobs().end_all();
    for (std::size_t i = 0; i < files.size(); ++i) {
      const auto& description = control->pc().drives()[i]->description();
      files[i] = {description.file, description.format};
    }
    control->pc().close_drives();
  }
  CHECK(answered == asked);
  CHECK(well > asked / 20);
  for (std::size_t i = 0; i < files.size(); ++i) {
    disks[i].check(files[i].first, files[i].second);
  }
}
