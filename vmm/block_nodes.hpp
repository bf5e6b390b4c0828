// Images that a client of the monitor has opened, and that no drive shows: targets of backups.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "base/stop.hpp"
#include "block/node.hpp"

namespace whistler {

/// Under the machine lock.
class BlockNodes {
 public:
  struct Entry {
    OpenNode open;
    bool lent = false;
  };

  [[nodiscard]] const std::map<std::string, std::shared_ptr<Entry>>& all() const { return nodes_; }
  /// Null if there is none of that name.
  [[nodiscard]] Entry* find(const std::string& name) const;
  /// Keeps a name for a node that is being opened, until add() or give_back(); false if it is taken.
  [[nodiscard]] bool reserve(const std::string& name) {
    return find(name) == nullptr && reserved_.insert(name).second;
  }
  void give_back(const std::string& name) { reserved_.erase(name); }
  void add(const std::string& name, OpenNode node);
  /// Forgets a node that is not lent, and gives it to be closed.
  [[nodiscard]] OpenNode remove(const std::string& name);
  /// For opening them: makes their requests fail that wait for a server.
  [[nodiscard]] Stop& servers() { return servers_; }
  /// What a job writes to. The node stays when that is closed.
  [[nodiscard]] std::unique_ptr<BlockDevice> lend(const std::string& name);
  /// When no job runs any more.
  void close_all(Ring& ring);

 private:
  std::map<std::string, std::shared_ptr<Entry>> nodes_;
  std::set<std::string> reserved_;
  Stop servers_;
};

}  // namespace whistler
