// Snapshots and jobs as the monitor's clients ask for them, on a machine without processors.
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "block/jobs/targets.hpp"
#include "vmm/monitor/control_fake.hpp"
#include "vmm/monitor/qmp_commands.hpp"
#include "vmm/test_folder.hpp"

using namespace whistler;
using namespace whistler::qmp;

namespace {

constexpr std::string_view kDrives = R"(
  "drives": [ { "id": "hda", "interface": "ide", "bus": 0, "unit": 0, "media": "disk", "file": "hda.qcow2",
                "format": "qcow2" },
              { "id": "hdb", "interface": "ide", "bus": 0, "unit": 1, "media": "disk", "file": "hdb.raw",
                "format": "raw" },
              { "id": "cd0", "interface": "ide", "bus": 1, "unit": 0, "media": "cdrom", "format": "raw" } ])";
constexpr std::uint64_t kDisk = 1 << 20;

struct Machine {
  TestFolder folder;
  std::unique_ptr<ControlFake> control;
  std::size_t seen = 0;  // of the events

  Machine() {
    const auto ring = Ring::create();
    REQUIRE(ring);
    for (const auto& [name, format] : {std::pair("hda.qcow2", "qcow2"), std::pair("hdb.raw", "raw")}) {
      NewFile file{.path = folder / name, .format = format, .size = kDisk};
      REQUIRE(sync_wait(**ring, make_image(**ring, file)));
    }
    control = ControlFake::make(kDrives, folder / "machine.json");
  }
  Answer<Json> ask(const std::string& command, Json arguments = Json::object()) {
    return control->ask({.command = command, .arguments = std::move(arguments)});
  }
  std::string refusal(const std::string& command, Json arguments = Json::object()) {
    const auto answer = ask(command, std::move(arguments));
    return answer ? "" : answer.error().description;
  }
  /// The next event of that name; what comes before it is passed over.
  Json event(std::string_view name) {
    while (true) {
      for (; seen < control->events.size(); ++seen) {
        if (control->events[seen].name == name) {
          return control->events[seen++].data;
        }
      }
      control->pc().loop().run_once(-1);
    }
  }
  void put(std::size_t drive, std::uint64_t at, char byte) {
    std::string text(4096, byte);
    const iovec piece{text.data(), text.size()};
    auto& pc = control->pc();
    const std::scoped_lock lock(pc.lock());
    REQUIRE(sync_wait(pc.ring(), pc.drives()[drive]->device()->writev(at, {&piece, 1})));
  }
  char get(const std::string& file, const std::string& format, std::uint64_t at) {
    const auto ring = Ring::create();
    auto image =
        open_image(**ring, {.path = folder / file, .format = format, .read_only = true, .lock = false});
    INFO((image ? std::string() : image.error().message));
    REQUIRE(image);
    char byte = 0;
    const iovec piece{&byte, 1};
    REQUIRE(sync_wait(**ring, (*image)->readv(at, {&piece, 1})));
    REQUIRE(sync_wait(**ring, (*image)->close()));
    return byte;
  }
  void snapshot(const std::string& file) {
    REQUIRE(ask("blockdev-snapshot-sync", {{"device", "hda"}, {"snapshot-file", folder / file}}) ==
            Json::object());
  }
  Json inserted(std::size_t drive) { return (*ask("query-block"))[drive]["inserted"]; }
};

}  // namespace

TEST_CASE("snapshot_puts_a_new_file_over_the_old_one", "[monitor]") {
  Machine m;
  m.put(0, 0, 'a');
  m.snapshot("one.qcow2");
  m.put(0, 0, 'b');
  CHECK(m.inserted(0)["file"] == (m.folder / "one.qcow2"));
  CHECK(m.inserted(0)["backing_file"] == (m.folder / "hda.qcow2"));
  CHECK(m.inserted(0)["backing_file_depth"] == 1);
  CHECK(m.get("hda.qcow2", "qcow2", 0) == 'a');
  const auto nodes = *m.ask("query-named-block-nodes");
  CHECK(nodes[1]["node-name"] == "#hda.1");
  CHECK(nodes[1]["ro"] == true);
  CHECK((*m.ask("query-blockstats"))[0]["stats"]["wr_operations"] == 2);
}

TEST_CASE("snapshot_of_a_raw_disk_names_its_format", "[monitor]") {
  Machine m;
  REQUIRE(m.ask("blockdev-snapshot-sync",
                {{"node-name", "hdb"}, {"snapshot-file", m.folder / "over.qcow2"}, {"format", "qcow2"}}));
  m.put(1, 512, 'x');
  CHECK(m.inserted(1)["drv"] == "qcow2");
  CHECK(m.get("hdb.raw", "raw", 512) == 0);
}

TEST_CASE("snapshot_refusals_are_qemus_and_change_nothing", "[monitor]") {
  Machine m;
  const std::string command = "blockdev-snapshot-sync";
  CHECK(m.refusal(command, {{"device", "no"}, {"snapshot-file", "x"}}) ==
        "Cannot find device='no' nor node-name=''");
  CHECK(m.refusal(command, {{"device", "cd0"}, {"snapshot-file", "x"}}) == "Device 'cd0' has no medium");
  CHECK(m.refusal(command, {{"device", "hda"}}) == "Parameter 'snapshot-file' is missing");
  CHECK(m.refusal(command, {{"device", "hda"}, {"snapshot-file", "x"}, {"mode", "new"}}) ==
        "Parameter 'mode' does not accept value 'new'");
  CHECK(m.refusal(command, {{"device", "hda"}, {"snapshot-file", "/nowhere/x"}}) ==
        "Could not create '/nowhere/x': No such file or directory");
  CHECK(m.refusal(command, {{"device", "hda"}, {"snapshot-file", "x"}, {"format", "raw"}}) ==
        "Backing file not supported for file format 'raw'");
  CHECK(m.refusal(command, {{"device", "hda"}, {"snapshot-file", m.folder / "hda.qcow2"}}) != "");
  CHECK(m.inserted(0)["backing_file_depth"] == 0);
  m.put(0, 0, 'z');
}

TEST_CASE("transaction_is_done_whole_or_not_at_all", "[monitor]") {
  Machine m;
  const auto snapshot = [&](const char* drive, const std::string& file) {
    return Json{{"type", "blockdev-snapshot-sync"}, {"data", {{"device", drive}, {"snapshot-file", file}}}};
  };
  CHECK(m.refusal("transaction",
                  {{"actions", {snapshot("hda", m.folder / "a"), snapshot("hdb", "/nowhere/b")}}}) != "");
  CHECK_FALSE(std::filesystem::exists(m.folder / "a"));
  CHECK(m.inserted(0)["backing_file_depth"] == 0);
  m.put(0, 0, 'a');
  REQUIRE(m.ask("transaction",
                {{"actions", {snapshot("hda", m.folder / "a"), snapshot("hdb", m.folder / "b")}}}));
  CHECK(m.inserted(0)["backing_file_depth"] == 1);
  CHECK(m.inserted(1)["backing_file_depth"] == 1);
}

TEST_CASE("backup_tells_of_its_life_and_copies_the_disk", "[monitor]") {
  Machine m;
  m.put(0, 65536, 'k');
  REQUIRE(
      m.ask("drive-backup",
            {{"device", "hda"}, {"target", m.folder / "copy.raw"}, {"format", "raw"}, {"sync", "full"}}) ==
      Json::object());
  for (const auto* status : {"created", "running", "waiting", "pending"}) {
    CHECK(m.event("JOB_STATUS_CHANGE") == Json{{"id", "hda"}, {"status", status}});
  }
  CHECK(m.event("BLOCK_JOB_COMPLETED") ==
        Json{{"device", "hda"}, {"type", "backup"}, {"len", kDisk}, {"offset", kDisk}, {"speed", 0}});
  CHECK(m.event("JOB_STATUS_CHANGE")["status"] == "concluded");
  CHECK(m.event("JOB_STATUS_CHANGE")["status"] == "null");
  CHECK(m.ask("query-block-jobs")->empty());
  CHECK(m.get("copy.raw", "raw", 65536) == 'k');
}

TEST_CASE("job_is_shown_and_steered_while_it_runs", "[monitor]") {
  Machine m;
  REQUIRE(m.ask("drive-backup", {{"device", "hda"},
                                 {"job-id", "mine"},
                                 {"target", m.folder / "copy"},
                                 {"sync", "full"},
                                 {"speed", 1},
                                 {"auto-finalize", false},
                                 {"auto-dismiss", false}}));
  auto job = (*m.ask("query-block-jobs"))[0];
  CHECK(job["device"] == "mine");
  CHECK(job["status"] == "running");
  CHECK(job["speed"] == 1);
  CHECK(job["io-status"] == "ok");
  CHECK(m.refusal("drive-backup", {{"device", "hda"}, {"target", m.folder / "q"}, {"sync", "full"}}) ==
        "Node 'hda' is busy: block device is in use by block job: backup");
  CHECK(m.refusal("block_resize", {{"device", "hda"}, {"size", 2 << 20}}) ==
        "Node 'hda' is busy: block device is in use by block job: backup");
  CHECK(
      m.refusal("drive-backup", {{"device", "hdb"}, {"job-id", "mine"}, {"target", "q"}, {"sync", "full"}}) ==
      "Job ID 'mine' already in use");
  REQUIRE(m.ask("block-job-pause", {{"device", "mine"}}));
  CHECK(m.refusal("block-job-cancel", {{"device", "mine"}}) ==
        "The block job for device 'mine' is currently paused");
  REQUIRE(m.ask("job-resume", {{"id", "mine"}}));
  REQUIRE(m.ask("block-job-set-speed", {{"device", "mine"}, {"speed", 0}}));
  CHECK(m.event("BLOCK_JOB_PENDING") == Json{{"type", "backup"}, {"id", "mine"}});
  REQUIRE(m.ask("job-finalize", {{"id", "mine"}}));
  m.event("BLOCK_JOB_COMPLETED");
  CHECK(m.event("JOB_STATUS_CHANGE")["status"] == "concluded");
  CHECK((*m.ask("query-jobs"))[0]["status"] == "concluded");
  REQUIRE(m.ask("job-dismiss", {{"id", "mine"}}));
  CHECK(m.ask("query-jobs")->empty());
}

TEST_CASE("unknown_jobs_are_refused_in_both_forms", "[monitor]") {
  Machine m;
  const auto answer = m.ask("block-job-cancel", {{"device", "x"}});
  REQUIRE_FALSE(answer);
  CHECK(answer.error().error_class == "DeviceNotActive");
  CHECK(answer.error().description == "Block job 'x' not found");
  CHECK(m.refusal("job-cancel", {{"id", "x"}}) == "Job not found");
}

TEST_CASE("cancelled_job_says_so", "[monitor]") {
  Machine m;
  REQUIRE(m.ask("drive-backup", {{"device", "hda"}, {"target", m.folder / "copy"}, {"sync", "none"}}));
  m.put(0, 0, 'n');
  REQUIRE(m.ask("block-job-cancel", {{"device", "hda"}}));
  CHECK(m.event("BLOCK_JOB_CANCELLED")["type"] == "backup");
  CHECK(m.get("copy", "qcow2", 0) == 0);
}

TEST_CASE("stream_and_commit_shorten_the_chain", "[monitor]") {
  Machine m;
  m.put(0, 0, '1');
  m.snapshot("one");
  m.put(0, 65536, '2');
  m.snapshot("two");
  m.put(0, 131072, '3');
  m.snapshot("three");
  CHECK(m.inserted(0)["backing_file_depth"] == 3);
  REQUIRE(m.ask("block-commit", {{"device", "hda"}, {"top", m.folder / "two"}, {"base-node", "#hda.2"}}));
  CHECK(m.event("BLOCK_JOB_COMPLETED")["type"] == "commit");
  m.event("JOB_STATUS_CHANGE");
  CHECK(m.event("JOB_STATUS_CHANGE")["status"] == "null");
  CHECK(m.inserted(0)["backing_file"] == (m.folder / "one"));
  CHECK(m.get("one", "qcow2", 131072) == '3');
  REQUIRE(m.ask("block-stream", {{"device", "hda"}, {"base", m.folder / "hda.qcow2"}}));
  CHECK(m.event("BLOCK_JOB_COMPLETED")["type"] == "stream");
  CHECK(m.inserted(0)["backing_file"] == (m.folder / "hda.qcow2"));
  m.event("JOB_STATUS_CHANGE");
  m.event("JOB_STATUS_CHANGE");
  REQUIRE(m.ask("block-commit", {{"device", "hda"}}));
  CHECK(m.event("BLOCK_JOB_READY")["type"] == "commit");
  CHECK(m.refusal("job-finalize", {{"id", "hda"}}) ==
        "Job 'hda' in state 'ready' cannot accept command verb 'finalize'");
  m.put(0, 200000, '4');
  REQUIRE(m.ask("block-job-complete", {{"device", "hda"}}));
  CHECK_FALSE(m.event("BLOCK_JOB_COMPLETED").contains("error"));
  CHECK(m.inserted(0)["file"] == (m.folder / "hda.qcow2"));
  m.put(0, 0, '5');
  for (const auto& [at, byte] : {std::pair(65536, '2'), std::pair(131072, '3'), std::pair(200000, '4')}) {
    CHECK(m.get("hda.qcow2", "qcow2", static_cast<std::uint64_t>(at)) == byte);
  }
}

TEST_CASE("commit_goes_back_into_a_raw_disk", "[monitor]") {
  Machine m;
  REQUIRE(m.ask("blockdev-snapshot-sync", {{"device", "hdb"}, {"snapshot-file", m.folder / "over"}}));
  m.put(1, 70000, 'w');
  REQUIRE(m.ask("block-commit", {{"device", "hdb"}, {"auto-dismiss", false}}));
  m.event("BLOCK_JOB_READY");
  REQUIRE(m.ask("job-complete", {{"id", "hdb"}}));
  CHECK_FALSE(m.event("BLOCK_JOB_COMPLETED").contains("error"));
  CHECK(m.inserted(1)["drv"] == "raw");
  CHECK(m.inserted(1)["ro"] == false);
  m.put(1, 0, 'x');
  CHECK(m.get("hdb.raw", "raw", 70000) == 'w');
  CHECK(m.get("over", "qcow2", 0) == 'x');
  CHECK((*m.ask("query-block-jobs"))[0]["status"] == "concluded");
}

TEST_CASE("chain_commands_name_what_is_wrong_as_qemu_does", "[monitor]") {
  Machine m;
  CHECK(m.ask("block-commit", {{"device", "no"}}).error().error_class == "DeviceNotFound");
  CHECK(m.refusal("block-commit", {{"device", "hda"}}) == "cannot commit an image into itself");
  m.snapshot("one");
  CHECK(m.refusal("block-commit", {{"device", "hda"}, {"top", "what"}}) == "Top image file what not found");
  CHECK(m.refusal("block-commit", {{"device", "hda"}, {"base", "what"}}) ==
        "Can't find 'what' in the backing chain");
  CHECK(m.refusal("block-commit", {{"device", "hda"}, {"base", "a"}, {"base-node", "b"}}) ==
        "'base-node' and 'base' are mutually exclusive");
  CHECK(m.refusal("block-stream", {{"device", "hda"}, {"base", "what"}}) ==
        "Can't find 'what' in the backing chain");
  CHECK(m.refusal("block-stream", {{"device", "no"}}) == "Cannot find device='no' nor node-name=''");
  CHECK(m.refusal("block-stream", {{"device", "hda"}, {"speed", -1}}) ==
        "Parameter 'speed' expects a non-negative value");
  CHECK(m.refusal("drive-mirror", {{"device", "hda"}, {"target", "x"}, {"sync", "some"}}) ==
        "Parameter 'sync' does not accept value 'some'");
}

TEST_CASE("mirror_pivots_to_its_target", "[monitor]") {
  Machine m;
  m.put(1, 0, 'm');
  REQUIRE(
      m.ask("drive-mirror",
            {{"device", "hdb"}, {"target", m.folder / "new.qcow2"}, {"format", "qcow2"}, {"sync", "full"}}));
  m.event("BLOCK_JOB_READY");
  m.put(1, 4096, 'n');
  REQUIRE(m.ask("block-job-complete", {{"device", "hdb"}}));
  m.event("BLOCK_JOB_COMPLETED");
  CHECK(m.inserted(1)["file"] == (m.folder / "new.qcow2"));
  m.put(1, 8192, 'o');
  CHECK(m.get("hdb.raw", "raw", 4096) == 'n');
  CHECK(m.get("hdb.raw", "raw", 8192) == 0);
}

TEST_CASE("snapshots_inside_an_image_come_and_go", "[monitor]") {
  Machine m;
  const std::string take = "blockdev-snapshot-internal-sync";
  m.put(0, 0, 'i');
  REQUIRE(m.ask(take, {{"device", "hda"}, {"name", "first"}}) == Json::object());
  m.put(0, 0, 'j');
  CHECK(m.refusal(take, {{"device", "hda"}, {"name", "first"}}) ==
        "Snapshot with name 'first' already exists on device 'hda'");
  CHECK(m.refusal(take, {{"device", "hda"}, {"name", ""}}) == "Name is empty");
  CHECK(m.refusal(take, {{"device", "hdb"}, {"name", "x"}}) ==
        "Block format 'raw' used by device 'hdb' does not support internal snapshots");
  const std::string remove = "blockdev-snapshot-delete-internal-sync";
  CHECK(m.refusal(remove, {{"device", "hda"}, {"name", "x"}}) ==
        "Snapshot with id '(null)' and name 'x' does not exist on device 'hda'");
  const auto removed = m.ask(remove, {{"device", "hda"}, {"name", "first"}});
  REQUIRE(removed);
  CHECK((*removed)["id"] == "1");
  CHECK((*removed)["vm-state-size"] == 0);
  m.put(0, 4096, 'k');
}

TEST_CASE("internal_snapshot_of_a_failed_transaction_is_taken_back", "[monitor]") {
  Machine m;
  const Json actions = {
      {{"type", "blockdev-snapshot-internal-sync"}, {"data", {{"device", "hda"}, {"name", "s"}}}},
      {{"type", "abort"}, {"data", Json::object()}}};
  CHECK(m.refusal("transaction", {{"actions", actions}}) == "Transaction aborted using Abort action");
  REQUIRE(m.ask("blockdev-snapshot-internal-sync", {{"device", "hda"}, {"name", "s"}}));
}

TEST_CASE("backup_to_a_node_that_was_added", "[monitor]") {
  Machine m;
  m.put(1, 12288, 'q');
  std::filesystem::copy_file(m.folder / "hdb.raw", m.folder / "copy");
  REQUIRE(m.ask("blockdev-add", {{"driver", "raw"},
                                 {"node-name", "target"},
                                 {"file", {{"driver", "file"}, {"filename", m.folder / "copy"}}}}) ==
          Json::object());
  m.put(1, 12288, 'r');
  REQUIRE(
      m.ask("blockdev-backup", {{"device", "hdb"}, {"target", "target"}, {"sync", "full"}, {"speed", 1}}));
  CHECK(m.refusal("blockdev-del", {{"node-name", "target"}}) == "Node target is in use");
  REQUIRE(m.ask("block-job-set-speed", {{"device", "hdb"}, {"speed", 0}}));
  CHECK_FALSE(m.event("BLOCK_JOB_COMPLETED").contains("error"));
  m.event("JOB_STATUS_CHANGE");
  m.event("JOB_STATUS_CHANGE");
  REQUIRE(m.ask("blockdev-del", {{"node-name", "target"}}));
  CHECK(m.get("copy", "raw", 12288) == 'r');
  CHECK(m.refusal("blockdev-del", {{"node-name", "target"}}) ==
        "Failed to find node with node-name='target'");
  CHECK(m.refusal("blockdev-backup", {{"device", "hdb"}, {"target", "no"}, {"sync", "full"}}) ==
        "Cannot find device='no' nor node-name='no'");
  CHECK(m.refusal("blockdev-add", {{"driver", "raw"},
                                   {"node-name", "hda"},
                                   {"file", {{"driver", "file"}, {"filename", "/nowhere"}}}}) ==
        "Duplicate nodes with node-name='hda'");
}

TEST_CASE("jobs_of_one_transaction_keep_apart", "[monitor]") {
  Machine m;
  const auto backup = [&](const char* drive, const char* id, const char* target) {
    return Json{
        {"type", "drive-backup"},
        {"data", {{"device", drive}, {"job-id", id}, {"target", m.folder / target}, {"sync", "full"}}}};
  };
  CHECK(m.refusal("transaction", {{"actions", {backup("hda", "a", "1"), backup("hda", "b", "2")}}}) ==
        "Node 'hda' is busy: only one job at a time can work on it");
  CHECK(m.refusal("transaction", {{"actions", {backup("hda", "a", "1"), backup("hdb", "a", "2")}}}) ==
        "Job ID 'a' already in use");
  CHECK(m.ask("query-jobs")->empty());
  REQUIRE(m.ask("transaction", {{"actions", {backup("hda", "a", "1"), backup("hdb", "b", "2")}}}));
}

TEST_CASE("node_is_lent_once", "[monitor]") {
  Machine m;
  std::filesystem::copy_file(m.folder / "hdb.raw", m.folder / "copy");
  REQUIRE(m.ask("blockdev-add", {{"driver", "raw"},
                                 {"node-name", "one"},
                                 {"file", {{"driver", "file"}, {"filename", m.folder / "copy"}}}}));
  const auto backup = [&](const char* drive) {
    return Json{{"type", "blockdev-backup"},
                {"data", {{"device", drive}, {"target", "one"}, {"sync", "full"}}}};
  };
  CHECK(m.refusal("transaction", {{"actions", {backup("hda"), backup("hdb")}}}) ==
        "Node 'one' is busy: it is the target of another job");
  REQUIRE(m.ask("blockdev-del", {{"node-name", "one"}}));
}

namespace {

/// Backups of both disks that take effect together; the second is so slow that it does not end by itself.
Json grouped(const Machine& m, bool auto_finalize = true) {
  const auto backup = [&](const char* drive, int speed) {
    return Json{{"type", "drive-backup"},
                {"data",
                 {{"device", drive},
                  {"target", m.folder / (std::string(drive) + ".copy")},
                  {"format", "qcow2"},
                  {"sync", "full"},
                  {"speed", speed},
                  {"auto-finalize", auto_finalize}}}};
  };
  return {{"actions", {backup("hda", 0), backup("hdb", 1)}},
          {"properties", {{"completion-mode", "grouped"}}}};
}

}  // namespace

TEST_CASE("grouped_jobs_wait_for_each_other", "[monitor]") {
  Machine m;
  REQUIRE(m.ask("transaction", grouped(m)));
  while (m.event("JOB_STATUS_CHANGE") != Json{{"id", "hda"}, {"status", "waiting"}}) {
  }
  CHECK((*m.ask("query-block-jobs"))[0]["status"] == "waiting");
  REQUIRE(m.ask("block-job-set-speed", {{"device", "hdb"}, {"speed", 0}}));
  CHECK_FALSE(m.event("BLOCK_JOB_COMPLETED").contains("error"));
  CHECK_FALSE(m.event("BLOCK_JOB_COMPLETED").contains("error"));
}

TEST_CASE("grouped_job_that_is_cancelled_takes_the_others_with_it", "[monitor]") {
  const auto* victim = GENERATE("hda", "hdb");
  Machine m;
  REQUIRE(m.ask("transaction", grouped(m)));
  while (m.event("JOB_STATUS_CHANGE") != Json{{"id", "hda"}, {"status", "waiting"}}) {
  }
  REQUIRE(m.ask("job-cancel", {{"id", victim}}));
  m.event("BLOCK_JOB_CANCELLED");
  m.event("BLOCK_JOB_CANCELLED");
  CHECK(m.ask("query-jobs")->empty());
}

TEST_CASE("grouped_jobs_are_finalized_by_either", "[monitor]") {
  Machine m;
  REQUIRE(m.ask("transaction", grouped(m, false)));
  REQUIRE(m.ask("block-job-set-speed", {{"device", "hdb"}, {"speed", 0}}));
  m.event("BLOCK_JOB_PENDING");
  m.event("BLOCK_JOB_PENDING");
  REQUIRE(m.ask("job-finalize", {{"id", "hdb"}}));
  m.event("BLOCK_JOB_COMPLETED");
  m.event("BLOCK_JOB_COMPLETED");
}

TEST_CASE("machine_that_ends_takes_grouped_jobs_with_it", "[monitor]") {
  Machine m;
  REQUIRE(m.ask("transaction", grouped(m)));
  while (m.event("JOB_STATUS_CHANGE") != Json{{"id", "hda"}, {"status", "waiting"}}) {
  }
  {
    const std::scoped_lock lock(m.control->pc().lock());
    m.control->pc().close_drives();
  }
  m.event("BLOCK_JOB_CANCELLED");
  m.event("BLOCK_JOB_CANCELLED");
}

TEST_CASE("only_jobs_can_be_grouped", "[monitor]") {
  Machine m;
  const Json snapshot = {{"type", "blockdev-snapshot-sync"},
                         {"data", {{"device", "hda"}, {"snapshot-file", m.folder / "x"}}}};
  CHECK(
      m.refusal("transaction", {{"actions", {snapshot}}, {"properties", {{"completion-mode", "grouped"}}}}) ==
      "Action 'blockdev-snapshot-sync' does not support transaction property completion-mode = grouped");
  CHECK(m.refusal("transaction", {{"actions", {snapshot}}, {"properties", {{"completion-mode", "some"}}}}) ==
        "Parameter 'completion-mode' does not accept value 'some'");
  CHECK(m.refusal("transaction", {{"actions", {snapshot}}, {"properties", {{"mode", "grouped"}}}}) ==
        "Parameter 'mode' is unexpected");
}

TEST_CASE("backup_is_compressed_where_that_is_asked_for", "[monitor]") {
  Machine m;
  for (std::uint64_t at = 0; at < kDisk; at += 4096) {
    m.put(0, at, 'c');
  }
  const auto backup = [&](const char* target, const char* format) {
    return Json{{"device", "hda"},
                {"target", m.folder / target},
                {"format", format},
                {"sync", "full"},
                {"compress", true}};
  };
  CHECK(m.refusal("drive-backup", backup("copy.raw", "raw")) ==
        "Compression is not supported for this drive " + (m.folder / "copy.raw"));
  CHECK_FALSE(std::filesystem::exists(m.folder / "copy.raw"));
  REQUIRE(m.ask("drive-backup", backup("copy", "qcow2")));
  m.put(0, kDisk - 4096, 'd');
  CHECK_FALSE(m.event("BLOCK_JOB_COMPLETED").contains("error"));
  CHECK(std::filesystem::file_size(m.folder / "copy") < kDisk / 2);
  CHECK(m.get("copy", "qcow2", 70000) == 'c');
  CHECK(m.get("copy", "qcow2", kDisk - 1) == 'c');
}

TEST_CASE("stream_ends_at_the_bottom_it_is_given", "[monitor]") {
  Machine m;
  m.put(0, 0, '1');
  m.snapshot("one");
  m.put(0, 65536, '2');
  m.snapshot("two");
  const auto stream = [&](Json more) {
    more["device"] = "hda";
    return more;
  };
  CHECK(m.refusal("block-stream", stream({{"bottom", "#hda.9"}})) ==
        "Cannot find device='' nor node-name='#hda.9'");
  CHECK(m.refusal("block-stream", stream({{"bottom", "#hda.1"}, {"base-node", "#hda.2"}})) ==
        "'bottom' and 'base-node' cannot be specified at the same time");
  CHECK(m.refusal("block-stream", stream({{"bottom", "#hda.1"}, {"base", "x"}})) ==
        "'base' and 'bottom' cannot be specified at the same time");
  REQUIRE(m.ask("block-stream", stream({{"bottom", "#hda.1"}})));
  CHECK_FALSE(m.event("BLOCK_JOB_COMPLETED").contains("error"));
  CHECK(m.inserted(0)["backing_file"] == (m.folder / "hda.qcow2"));
  CHECK(m.get("two", "qcow2", 65536) == '2');
  m.event("JOB_STATUS_CHANGE");
  CHECK(m.event("JOB_STATUS_CHANGE")["status"] == "null");
  REQUIRE(m.ask("block-stream", stream({{"bottom", "#hda.1"}, {"job-id", "all"}})));
  CHECK_FALSE(m.event("BLOCK_JOB_COMPLETED").contains("error"));
  CHECK(m.inserted(0)["backing_file_depth"] == 0);
}

TEST_CASE("node_that_refers_to_another_is_refused_by_name", "[monitor]") {
  Machine m;
  CHECK(m.refusal("blockdev-add", {{"driver", "raw"}, {"node-name", "n"}, {"file", "other"}}) ==
        "'file': a reference to node 'other' is not supported: describe the image in its place");
  CHECK(m.refusal("blockdev-add", {{"driver", "qcow2"},
                                   {"node-name", "n"},
                                   {"file", {{"driver", "file"}, {"filename", m.folder / "hda.qcow2"}}},
                                   {"backing", {{"driver", "raw"}, {"file", "deep"}}}}) ==
        "'backing.file': a reference to node 'deep' is not supported: describe the image in its place");
}

TEST_CASE("machine_that_ends_takes_its_jobs_with_it", "[monitor]") {
  Machine m;
  m.snapshot("one");
  m.put(0, 0, 'e');
  REQUIRE(m.ask("block-stream", {{"device", "hda"}, {"speed", 1}}));
  REQUIRE(m.ask("drive-backup",
                {{"device", "hdb"}, {"target", m.folder / "copy"}, {"format", "qcow2"}, {"sync", "none"}}));
  auto& pc = m.control->pc();
  {
    const std::scoped_lock lock(pc.lock());
    pc.close_drives();
  }
  m.event("BLOCK_JOB_CANCELLED");
  m.event("BLOCK_JOB_CANCELLED");
  CHECK(m.get("one", "qcow2", 0) == 'e');
}
