// What a service manager is told: the notification protocol of systemd (sd_notify(3)), and levels for its
// journal (sd-daemon(3)). Without a manager nothing happens.
#pragma once

#include <string_view>

namespace whistler {

/// Sends lines like "READY=1" or "STATUS=..." to the socket NOTIFY_SOCKET names: a path, or with "@" an
/// abstract name. Never blocks; who does not listen is not waited for. Any thread.
void notify_service(std::string_view lines);

/// Whether the descriptor leads to the journal, as JOURNAL_STREAM tells: then a line may begin with
/// "<LEVEL>".
[[nodiscard]] bool leads_to_journal(int descriptor);

}  // namespace whistler
