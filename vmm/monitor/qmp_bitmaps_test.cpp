// Dirty bitmaps and the backups that use them, as clients ask for them, on a machine without processors.
#include <catch2/catch.hpp>

#include "block/jobs/targets.hpp"
#include "vmm/monitor/control_fake.hpp"
#include "vmm/test_folder.hpp"

using namespace whistler;
using namespace whistler::qmp;

namespace {

constexpr std::string_view kDrives = R"(
  "drives": [ { "id": "hda", "interface": "ide", "bus": 0, "unit": 0, "media": "disk", "file": "hda.qcow2",
                "format": "qcow2" },
              { "id": "cd0", "interface": "ide", "bus": 1, "unit": 0, "media": "cdrom", "format": "raw" } ])";
constexpr std::uint64_t kDisk = 1 << 20;
constexpr std::uint64_t kUnit = 65536;

struct Machine {
  TestFolder folder;
  std::unique_ptr<ControlFake> control;

  Machine() {
    make("hda.qcow2", "qcow2");
    control = ControlFake::make(kDrives, folder / "machine.json");
  }
  void make(const std::string& name, const std::string& format) {
    const auto ring = Ring::create();
    NewFile file{.path = folder / name, .format = format, .size = kDisk};
    REQUIRE(sync_wait(**ring, make_image(**ring, file)));
  }
  std::string refusal(const std::string& command, Json arguments) {
    const auto answer = control->ask({.command = command, .arguments = std::move(arguments)});
    return answer ? "" : answer.error().description;
  }
  /// One of the commands block-dirty-bitmap-*.
  std::string bitmap(const std::string& verb, const char* name = "b", Json more = Json::object()) {
    more["node"] = "hda";
    more[verb == "merge" ? "target" : "name"] = name;
    return refusal("block-dirty-bitmap-" + verb, std::move(more));
  }
  void put(std::uint64_t at, char byte) {
    std::string text(512, byte);
    const iovec piece{text.data(), text.size()};
    auto& pc = control->pc();
    const std::scoped_lock lock(pc.lock());
    REQUIRE(sync_wait(pc.ring(), pc.drives()[0]->device()->writev(at, {&piece, 1})));
  }
  char get(const std::string& file, std::uint64_t at) {
    const auto ring = Ring::create();
    auto image =
        open_image(**ring, {.path = folder / file, .format = "raw", .read_only = true, .lock = false});
    REQUIRE(image);
    char byte = 0;
    const iovec piece{&byte, 1};
    REQUIRE(sync_wait(**ring, (*image)->readv(at, {&piece, 1})));
    REQUIRE(sync_wait(**ring, (*image)->close()));
    return byte;
  }
  Json shown() {
    const auto block = *control->ask({.command = "query-block"});
    return block[0]["inserted"].value("dirty-bitmaps", Json::array());
  }
  std::uint64_t count(std::size_t number = 0) { return shown()[number]["count"].get<std::uint64_t>(); }
  /// A backup into a raw file; "" or why it was refused or failed.
  std::string backup(const std::string& file, Json how) {
    how.update({{"device", "hda"}, {"target", folder / file}, {"format", "raw"}});
    if (const auto refused = refusal("drive-backup", std::move(how)); !refused.empty()) {
      return refused;
    }
    return ended();
  }
  /// Of two marked units into "copy", so slow that it does not end by itself.
  void begin_slow_backup(const char* mode) {
    REQUIRE(bitmap("add") == "");
    put(kUnit, '1');
    put(2 * kUnit, '1');
    REQUIRE(refusal("drive-backup", {{"device", "hda"},
                                     {"target", folder / "copy"},
                                     {"format", "raw"},
                                     {"sync", "bitmap"},
                                     {"bitmap", "b"},
                                     {"bitmap-mode", mode},
                                     {"speed", 1}}) == "");
  }
  std::string ended() {
    while (!control->ask({.command = "query-jobs"})->empty()) {
      control->pc().loop().run_once(-1);
    }
    const auto done = std::ranges::find_if(control->events, [](const auto& event) {
      return event.name == "BLOCK_JOB_COMPLETED" || event.name == "BLOCK_JOB_CANCELLED";
    });
    REQUIRE(done != control->events.end());
    auto why = done->name == "BLOCK_JOB_CANCELLED" ? "cancelled" : done->data.value("error", std::string());
    control->events.clear();
    return why;
  }
};

}  // namespace

TEST_CASE("bitmap_shows_what_has_changed", "[monitor]") {
  Machine m;
  REQUIRE(m.bitmap("add") == "");
  m.put(kUnit, 'a');
  m.put(kUnit + 512, 'a');
  CHECK(m.shown() == Json::array({{{"name", "b"},
                                   {"count", kUnit},
                                   {"granularity", kUnit},
                                   {"recording", true},
                                   {"busy", false},
                                   {"persistent", false}}}));
  REQUIRE(m.bitmap("disable") == "");
  m.put(0, 'a');
  CHECK(m.count() == kUnit);
  REQUIRE(m.bitmap("enable") == "");
  m.put(0, 'b');
  CHECK(m.count() == 2 * kUnit);
  REQUIRE(m.bitmap("clear") == "");
  CHECK(m.count() == 0);
  REQUIRE(m.bitmap("remove") == "");
  CHECK(m.shown().empty());
}

TEST_CASE("bitmaps_are_merged", "[monitor]") {
  Machine m;
  REQUIRE(m.bitmap("add", "fine", {{"granularity", 4096}}) == "");
  m.put(8192, 'a');
  REQUIRE(m.bitmap("add", "late", {{"disabled", true}}) == "");
  m.put(3 * kUnit, 'a');
  CHECK(m.count(0) == 8192);
  CHECK(m.count(1) == 0);
  REQUIRE(m.bitmap("merge", "late", {{"bitmaps", {"fine"}}}) == "");
  CHECK(m.count(1) == 2 * kUnit);
  CHECK(m.bitmap("merge", "late", {{"bitmaps", {{{"node", "hda"}, {"name", "no"}}}}}) ==
        "Dirty bitmap 'no' not found");
}

TEST_CASE("bitmap_commands_name_what_is_wrong", "[monitor]") {
  Machine m;
  REQUIRE(m.bitmap("add") == "");
  CHECK(m.bitmap("add") == "Bitmap already exists: b");
  CHECK(m.bitmap("add", "") == "Bitmap name cannot be empty");
  CHECK(m.bitmap("add", "c", {{"granularity", 1000}}) ==
        "Granularity must be power of 2, from 512 to 2147483648");
  CHECK(m.bitmap("add", "c", {{"granularity", -512}}) != "");
  CHECK(m.bitmap("add", "c", {{"persistent", true}}) ==
        "'persistent' is not supported: bitmaps last as long as the machine runs");
  CHECK(m.bitmap("clear", "c") == "Dirty bitmap 'c' not found");
  CHECK(m.refusal("block-dirty-bitmap-add", {{"node", "no"}, {"name", "b"}}) ==
        "Cannot find device='no' nor node-name='no'");
  CHECK(m.refusal("block-dirty-bitmap-add", {{"node", "cd0"}, {"name", "b"}}) == "Device has no medium");
  CHECK(m.backup("x", {{"sync", "incremental"}}) ==
        "must provide a valid bitmap name for 'incremental' sync mode");
  CHECK(m.backup("x", {{"sync", "bitmap"}, {"bitmap", "b"}}) ==
        "Bitmap sync mode must be given when providing a bitmap");
  CHECK(m.backup("x", {{"sync", "incremental"}, {"bitmap", "b"}, {"bitmap-mode", "never"}}) ==
        "Bitmap sync mode must be 'on-success' when using sync mode 'incremental'");
  CHECK(m.backup("x", {{"sync", "full"}, {"bitmap-mode", "never"}}) ==
        "Cannot specify bitmap sync mode without a bitmap");
  CHECK(m.backup("x", {{"sync", "full"}, {"bitmap", "b"}, {"bitmap-mode", "never"}}) ==
        "Bitmap sync mode 'never' has no meaningful effect when combined with sync mode 'full'");
  CHECK(m.backup("x", {{"sync", "none"}, {"bitmap", "b"}, {"bitmap-mode", "always"}}) ==
        "sync mode 'none' does not produce meaningful bitmap outputs");
  CHECK(m.backup("x", {{"sync", "incremental"}, {"bitmap", "no"}}) == "Bitmap 'no' could not be found");
}

TEST_CASE("bitmap_made_in_a_transaction_that_fails_is_taken_back", "[monitor]") {
  Machine m;
  const auto action = [](const std::string& verb) {
    return Json{{"type", "block-dirty-bitmap-" + verb}, {"data", {{"node", "hda"}, {"name", "b"}}}};
  };
  const Json abort = {{"type", "abort"}, {"data", Json::object()}};
  CHECK(m.refusal("transaction", {{"actions", {action("add"), abort}}}) ==
        "Transaction aborted using Abort action");
  CHECK(m.shown().empty());
  REQUIRE(m.bitmap("add") == "");
  m.put(0, 'a');
  CHECK(m.refusal("transaction",
                  {{"actions", {action("clear"), action("disable"), action("remove"), abort}}}) != "");
  REQUIRE(m.shown().size() == 1);
  CHECK(m.count() == kUnit);
  CHECK(m.shown()[0]["recording"] == true);
}

TEST_CASE("incremental_backup_copies_what_has_changed_since_the_last", "[monitor]") {
  Machine m;
  m.put(0, '1');
  m.put(5 * kUnit, '1');
  const Json full = {
      {"type", "drive-backup"},
      {"data", {{"device", "hda"}, {"target", m.folder / "full"}, {"format", "raw"}, {"sync", "full"}}}};
  const Json add = {{"type", "block-dirty-bitmap-add"}, {"data", {{"node", "hda"}, {"name", "b"}}}};
  REQUIRE(m.refusal("transaction", {{"actions", {add, full}}}) == "");
  REQUIRE(m.ended() == "");
  m.put(5 * kUnit, '2');
  m.make("one", "raw");
  REQUIRE(m.backup("one", {{"sync", "incremental"}, {"bitmap", "b"}, {"mode", "existing"}}) == "");
  CHECK(m.get("full", 5 * kUnit) == '1');
  CHECK(m.get("one", 5 * kUnit) == '2');
  CHECK(m.get("one", 0) == 0);
  CHECK(m.count() == 0);
}

TEST_CASE("bitmap_keeps_what_the_guest_writes_during_the_backup", "[monitor]") {
  const auto* mode = GENERATE("on-success", "never", "always");
  Machine m;
  m.begin_slow_backup(mode);
  CHECK(m.shown()[0]["busy"] == true);
  CHECK(m.bitmap("clear") == "Bitmap 'b' is currently in use by another operation and cannot be used");
  m.put(2 * kUnit, '2');
  m.put(9 * kUnit, '2');
  REQUIRE(m.refusal("block-job-set-speed", {{"device", "hda"}, {"speed", 0}}) == "");
  REQUIRE(m.ended() == "");
  CHECK(m.get("copy", kUnit) == '1');
  CHECK(m.get("copy", 2 * kUnit) == '1');
  CHECK(m.get("copy", 9 * kUnit) == 0);
  CHECK(m.count() == (std::string(mode) == "never" ? 3 : 2) * kUnit);
}

TEST_CASE("backup_that_fails_leaves_its_bitmap_marked", "[monitor]") {
  const auto* mode = GENERATE("on-success", "always");
  Machine m;
  m.begin_slow_backup(mode);
  m.put(2 * kUnit, '2');  // which copies it
  m.put(9 * kUnit, '2');
  REQUIRE(m.refusal("job-cancel", {{"id", "hda"}}) == "");
  REQUIRE(m.ended() == "cancelled");
  // "always" need not copy again what the job has copied; the guest has changed unit 2 since.
  CHECK(m.count() >= 2 * kUnit);
  CHECK(m.count() <= 3 * kUnit);
  CHECK_FALSE(m.shown()[0]["busy"].get<bool>());
}

TEST_CASE("bitmap_goes_on_over_a_snapshot_and_a_change_of_size", "[monitor]") {
  Machine m;
  REQUIRE(m.bitmap("add") == "");
  REQUIRE(m.refusal("blockdev-snapshot-sync", {{"device", "hda"}, {"snapshot-file", m.folder / "over"}}) ==
          "");
  m.put(0, 'a');
  REQUIRE(m.refusal("block_resize", {{"device", "hda"}, {"size", 2 * kDisk}}) == "");
  m.put(2 * kDisk - 512, 'a');
  CHECK(m.count() == 2 * kUnit);
}
