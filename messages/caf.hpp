// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/errors.hpp"
#include "messages/fields.hpp"

#include <caf/config.hpp>

#include <string>

// The seam between Berth and CAF: everything that differs between CAF's releases is here.
#include <caf/error.hpp>
#include <caf/expected.hpp>
#include <caf/make_message.hpp> // caf/result.hpp of 0.17.6 does not include it
#include <caf/meta/load_callback.hpp>
#include <caf/meta/type_name.hpp>
#include <caf/replies_to.hpp>
#include <caf/result.hpp>
#include <caf/type_id.hpp>

namespace berth {

/// CAF's view of a message, from its description.
template <class Inspector, described T>
auto inspect(Inspector& f, T& x) {
  return std::apply(
      [&](auto... m) { return f(caf::meta::type_name(T::type_name), x.*(m.member)...); },
      T::fields());
}

/// CAF's view of a value that may be absent.
template <class Inspector, class T>
auto inspect(Inspector& f, maybe<T>& x) {
  bool present = x.has_value();
  T value = present ? *x : T{};
  auto load = [&]() -> caf::error {
    if (present)
      x = value;
    else
      x.reset();
    return {};
  };
  return f(present, value, caf::meta::load_callback(load));
}

namespace guest {
using berth::inspect; // found by argument-dependent look-up for the guest's messages too
} // namespace guest

/// One clause of a typed interface: `on<run>::reply<outcome>`.
template <class... In>
struct on {
  template <class... Out>
  using reply = typename caf::replies_to<In...>::template with<Out...>;
};

/// The state of an actor.
template <class Self>
decltype(auto) state_of(Self* self) {
  return (self->state);
}

} // namespace berth

CAF_BEGIN_TYPE_ID_BLOCK(berth_errors, caf::first_custom_type_id)
  CAF_ADD_TYPE_ID(berth_errors, (berth::ec))
CAF_END_TYPE_ID_BLOCK(berth_errors)

CAF_ERROR_CODE_ENUM(berth::ec, "berth")

namespace berth {

using caf::error;
using caf::expected;

/// An error with what was attempted, on what, and why it failed.
inline error fail(ec code, std::string detail) {
  return caf::make_error(code, std::move(detail));
}

/// What a client is told about an error: CAF's own errors become `internal` or `deadline`.
refusal to_refusal(const error& why);

/// One line for the log.
std::string describe_error(const error& why);

} // namespace berth
