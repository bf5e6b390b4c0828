// From what the user asked for to an open image.
#pragma once

#include <optional>
#include <string_view>

#include "tools/io/session.hpp"

namespace whistler::tools::io {

/// The message is what the tool prints after its name.
[[nodiscard]] Result<OpenedImage> open_request(Session& session, OpenRequest request);

/// The same; the message is only the reason.
[[nodiscard]] Result<OpenedImage> open_as_asked(Session& session, const OpenRequest& request);

/// Adds what `text` (KEY=VALUE,...) says to `options`.
[[nodiscard]] Result<void> add_options(const Session& session, const std::string& text, Options& options);
/// All options of the image, in a tree, and the file name if it has one.
[[nodiscard]] Result<NodeName> name_of_request(const Session& session, const OpenRequest& request);

/// -t, -d and -i; each complains about a value it does not know.
[[nodiscard]] bool take_cache(const Session& session, std::string_view value, OpenRequest& request);
[[nodiscard]] bool take_discard(const Session& session, std::string_view value, OpenRequest& request);
[[nodiscard]] bool take_aio(const Session& session, std::string_view value, OpenRequest& request);

}  // namespace whistler::tools::io
