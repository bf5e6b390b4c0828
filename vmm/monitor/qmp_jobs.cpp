#include "vmm/monitor/qmp_jobs.hpp"

#include <fmt/format.h>

#include <cstring>
#include <utility>

namespace whistler::qmp {
namespace {

std::string reason(const Error& error) {
  return error.sys_errno != 0 ? std::strerror(error.sys_errno) : error.message;
}

Answer<Json> answer(const Result<void>& done) {
  return done ? Answer<Json>(Json::object()) : refuse(done.error().message);
}

/// The form that names a job by "device".
template <typename Act>
Answer<Json> with_block_job(MachineControl& machine, const std::string& id, Act act) {
  const std::scoped_lock lock(machine.pc().lock());
  auto* const job = machine.pc().jobs().find(id);
  if (job == nullptr) {
    return std::unexpected(Refusal{.error_class = "DeviceNotActive",
                                   .description = fmt::format("Block job '{}' not found", id)});
  }
  return answer(act(*job));
}

template <typename Act>
Answer<Json> by_device(MachineControl& machine, Arguments& arguments, Act act,
                       const std::string& key = "device") {
  const auto id = arguments.text(key);
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  return with_block_job(machine, id, act);
}

template <typename Act>
Answer<Json> by_id(MachineControl& machine, Arguments& arguments, Act act) {
  const auto id = arguments.text("id");
  if (auto sound = arguments.finish(); !sound) {
    return std::unexpected(sound.error());
  }
  const std::scoped_lock lock(machine.pc().lock());
  auto* const job = machine.pc().jobs().find(id);
  return job == nullptr ? refuse("Job not found") : answer(act(*job));
}

Result<void> pause(BlockJob& job) { return job.pause(); }
Result<void> resume(BlockJob& job) { return job.resume(); }
Result<void> complete(BlockJob& job) { return job.complete(); }
Result<void> finalize(BlockJob& job) { return job.finalize(); }
Result<void> dismiss(BlockJob& job) { return job.dismiss(); }

/// What events of a job say of it.
Json summary(const BlockJob& job) {
  return {{"type", job.type()},
          {"device", job.settings().id},
          {"len", job.length()},
          {"offset", job.done()},
          {"speed", job.settings().speed}};
}

void tell(MachineControl& machine, const BlockJob& job, JobEvent event, std::string_view action, bool write) {
  auto data = summary(job);
  switch (event) {
    case JobEvent::kStatus:
      machine.tell("JOB_STATUS_CHANGE",
                   {{"id", job.settings().id}, {"status", job_status_word(job.status())}});
      break;
    case JobEvent::kReady: machine.tell("BLOCK_JOB_READY", std::move(data)); break;
    case JobEvent::kPending:
      machine.tell("BLOCK_JOB_PENDING", {{"type", job.type()}, {"id", job.settings().id}});
      break;
    case JobEvent::kCompleted:
      if (job.error()) {
        data["error"] = reason(*job.error());
      }
      machine.tell("BLOCK_JOB_COMPLETED", std::move(data));
      break;
    case JobEvent::kCancelled: machine.tell("BLOCK_JOB_CANCELLED", std::move(data)); break;
    case JobEvent::kError:
      machine.tell(
          "BLOCK_JOB_ERROR",
          {{"device", job.settings().id}, {"operation", write ? "write" : "read"}, {"action", action}});
      break;
  }
}

}  // namespace

Json query_block_jobs(MachineControl& machine) {
  const std::scoped_lock lock(machine.pc().lock());
  Json list = Json::array();
  for (const auto& job : machine.pc().jobs().all()) {
    auto one = summary(*job);
    one["busy"] = job->busy();
    one["paused"] = job->paused();
    one["io-status"] = job->io_status();
    one["ready"] = job->status() == JobStatus::kReady || job->status() == JobStatus::kStandby;
    one["status"] = job_status_word(job->status());
    one["auto-finalize"] = job->settings().auto_finalize;
    one["auto-dismiss"] = job->settings().auto_dismiss;
    if (job->error()) {
      one["error"] = reason(*job->error());
    }
    list.push_back(std::move(one));
  }
  return list;
}

Json query_jobs(MachineControl& machine) {
  const std::scoped_lock lock(machine.pc().lock());
  Json list = Json::array();
  for (const auto& job : machine.pc().jobs().all()) {
    Json one = {{"id", job->settings().id},
                {"type", job->type()},
                {"status", job_status_word(job->status())},
                {"current-progress", job->done()},
                {"total-progress", job->length()}};
    if (job->error()) {
      one["error"] = reason(*job->error());
    }
    list.push_back(std::move(one));
  }
  return list;
}

Answer<Json> block_job_cancel(MachineControl& machine, Arguments& arguments) {
  const bool force = arguments.flag_or("force", false);
  return by_device(machine, arguments, [force](BlockJob& job) -> Result<void> {
    if (job.paused() && !force) {
      return fail(ErrorCode::kInvalid,
                  fmt::format("The block job for device '{}' is currently paused", job.settings().id));
    }
    return job.cancel(force);
  });
}

Answer<Json> block_job_set_speed(MachineControl& machine, Arguments& arguments) {
  const auto speed = arguments.number("speed");
  return by_device(machine, arguments, [speed](BlockJob& job) -> Result<void> {
    if (speed < 0) {
      return fail(ErrorCode::kInvalid, "Parameter 'speed' expects a non-negative value");
    }
    return job.set_speed(static_cast<std::uint64_t>(speed));
  });
}

Answer<Json> block_job_pause(MachineControl& machine, Arguments& arguments) {
  return by_device(machine, arguments, pause);
}
Answer<Json> block_job_resume(MachineControl& machine, Arguments& arguments) {
  return by_device(machine, arguments, resume);
}
Answer<Json> block_job_complete(MachineControl& machine, Arguments& arguments) {
  return by_device(machine, arguments, complete);
}
Answer<Json> block_job_finalize(MachineControl& machine, Arguments& arguments) {
  return by_device(machine, arguments, finalize, "id");
}
Answer<Json> block_job_dismiss(MachineControl& machine, Arguments& arguments) {
  return by_device(machine, arguments, dismiss, "id");
}

Answer<Json> job_cancel(MachineControl& machine, Arguments& arguments) {
  return by_id(machine, arguments, [](BlockJob& job) { return job.cancel(true); });
}
Answer<Json> job_pause(MachineControl& machine, Arguments& arguments) {
  return by_id(machine, arguments, pause);
}
Answer<Json> job_resume(MachineControl& machine, Arguments& arguments) {
  return by_id(machine, arguments, resume);
}
Answer<Json> job_complete(MachineControl& machine, Arguments& arguments) {
  return by_id(machine, arguments, complete);
}
Answer<Json> job_finalize(MachineControl& machine, Arguments& arguments) {
  return by_id(machine, arguments, finalize);
}
Answer<Json> job_dismiss(MachineControl& machine, Arguments& arguments) {
  return by_id(machine, arguments, dismiss);
}

void watch_jobs(MachineControl& machine) {
  machine.pc().jobs().listen({[&machine](const BlockJob& job, JobEvent event, std::string_view action,
                                         bool write) { tell(machine, job, event, action, write); }});
}

}  // namespace whistler::qmp
