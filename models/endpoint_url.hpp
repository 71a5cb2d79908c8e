// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/settings.hpp"
#include "messages/model.hpp"

#include <string>
#include <string_view>

namespace berth::models {

/// A base URL in the one form in which two of them are compared: scheme and host in small letters,
/// no port that the scheme means anyway, no slash at the end, no `/v1` or `/api` of a dialect,
/// `127.0.0.1` for `localhost`. Empty when the text is no such URL: another scheme, no host, a
/// user, a query, a fragment.
std::string normal_url(std::string_view base_url);

/// A base URL as it is, without the slash and the dialect's own path at its end.
std::string plain_url(std::string_view base_url);

/// What comes before /chat/completions: the base itself, and `/v1` for one without a path.
std::string openai_base(std::string_view base_url);

/// The endpoint that a choice names, by provider and base URL; what is empty does not choose, and
/// the first that fits wins. Nothing but what is configured is ever found: this is what keeps a
/// client from having the server reach places of the client's choice.
const model_endpoint* find_endpoint(const std::vector<model_endpoint>& all,
                                    const model_choice& choice);

} // namespace berth::models
