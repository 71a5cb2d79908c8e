// SPDX-License-Identifier: Apache-2.0
#include "config/settings.hpp"
#include "messages/internal.hpp"

#include <catch2/catch.hpp>

using namespace berth;

namespace {

run good() {
  run request;
  request.code = "print(1)";
  request.language = "py";
  return request;
}

std::string detail_of(const error& why) {
  return to_refusal(why).detail;
}

template <class F>
error checked(F change) {
  run request = good();
  change(request);
  return check_request(request);
}

template <class F>
error resolved(F change, const settings& values = {}) {
  run request = good();
  change(request);
  auto got = resolve_limits(request, values);
  return got ? error{} : got.error();
}

} // namespace

TEST_CASE("A good request passes, and gets the defaults") {
  CHECK_FALSE(check_request(good()));
  auto got = resolve_limits(good(), {});
  REQUIRE(got);
  CHECK(*got == settings{}.defaults);
}

TEST_CASE("A fault of a request is told by its member") {
  using text = std::string;
  CHECK(detail_of(checked([](run& r) { r.code = " \n\t"; })) == "code: must not be empty");
  CHECK(checked([](run& r) { r.code.assign(limits::code_bytes_max + 1, 'x'); }) == ec::too_large);
  CHECK(detail_of(checked([](run& r) { r.code = text("a\0b", 3); }))
        == "code: must not contain NUL");
  CHECK(detail_of(checked([](run& r) { r.language = "cobol"; }))
        == "language: Unsupported language: cobol");
  CHECK(checked([](run& r) { r.language = "cobol"; }) == ec::unsupported);
  CHECK(detail_of(checked([](run& r) {
          r.args = {"a", text("\0", 1)};
        }))
        == "args[1]: must not contain NUL");
  CHECK(detail_of(checked([](run& r) { r.env[""] = "x"; })) == "env: a name must not be empty");
  CHECK(detail_of(checked([](run& r) { r.env["A=B"] = "x"; }))
        == "env: a name must not contain '=' or NUL");
  CHECK(checked([](run& r) { r.args = {text(limits::argument_bytes_max, 'x')}; }) == ec::too_large);
  CHECK(detail_of(checked([](run& r) { r.cwd = "../x"; })) == "cwd: must not contain \"..\"");
  CHECK(detail_of(checked([](run& r) { r.files = {{.path = "", .data = {}}}; }))
        == "files[0].path: must name a file");
  CHECK(detail_of(checked([](run& r) {
          r.files = {{.path = "a", .data = {}}, {.path = "b/../../c", .data = {}}};
        }))
        == "files[1].path: must not contain \"..\"");
  CHECK(detail_of(checked([](run& r) { r.files = {{.path = "a", .data = {}, .mode = 04755}}; }))
        == "files[0].mode: must be permission bits, at most 0777 (511)");
  CHECK(checked([](run& r) { r.agent_id.assign(300, 'x'); }) == ec::too_large);
  CHECK(checked([](run& r) { r.kind = "docker"; }) == ec::unsupported);
  CHECK(checked([](run& r) { r.metadata["k"].assign(70'000, 'x'); }) == ec::too_large);
  CHECK_FALSE(checked([](run& r) { r.files = {{.path = "/tmp/a..b", .data = {}}}; }));
}

TEST_CASE("A limit below the least or beyond the most is told by its member") {
  CHECK(detail_of(resolved([](run& r) { r.timeout_ms = 0; })) == "timeout_ms: must be at least 1");
  CHECK(detail_of(resolved([](run& r) { r.memory_mib = 9000; }))
        == "memory_mib: 9000 exceeds the limit of 8192");
  CHECK(resolved([](run& r) { r.memory_mib = 9000; }) == ec::too_large);
  CHECK(resolved([](run& r) { r.memory_mib = 15; }) == ec::malformed);
  CHECK(resolved([](run& r) { r.processes = 0; }) == ec::malformed);
  CHECK(resolved([](run& r) { r.disk_mib = 0; }) == ec::malformed);
  CHECK_FALSE(resolved([](run& r) { r.output_bytes = 0; }));
}

TEST_CASE("The policy caps limits: requests are refused, defaults lowered") {
  settings values;
  values.policy.security_settings.resource_limits.max_memory_mb.emplace(256);
  values.policy.security_settings.resource_limits.max_execution_time_seconds.emplace(10);
  auto got = resolve_limits(good(), values);
  REQUIRE(got);
  CHECK(got->memory_mib == 256);
  CHECK(got->timeout_ms == 10'000);
  CHECK(detail_of(resolved([](run& r) { r.timeout_ms = 10'001; }, values))
        == "timeout_ms: 10001 exceeds the limit of 10000");
  CHECK(find_vm_type(values, "development").memory_mib == 256);
}

TEST_CASE("A machine type gives a job its limits, and a name that is none is refused") {
  settings values;
  run request = good();
  request.vm_type = "development";
  CHECK(resolve_limits(request, values)->memory_mib == 2048);
  request.vm_type = "no-such-type";
  auto refused = resolve_limits(request, values);
  REQUIRE(!refused);
  CHECK(refused.error() == ec::unsupported);
  CHECK(to_refusal(refused.error()).detail.find("vm_type: no machine type is named") == 0);
  CHECK(find_vm_type(values, "") == find_vm_type(values, "focal-optimized"));
  values.policy.default_vm_type = "unknown too";
  CHECK(find_vm_type(values, "").memory_mib == values.defaults.memory_mib);
  open_session session;
  session.memory_mib = 64;
  session.kind = "qemu";
  auto machine = resolve_machine(session, values);
  REQUIRE(machine);
  CHECK(machine->memory_mib == 64);
  CHECK(machine->kind == "qemu");
  session.vm_type = "no-such-type";
  CHECK(!resolve_machine(session, values));
}

TEST_CASE("A job of a session may ask for what the session has, and for nothing else") {
  vm_type machine{.memory_mib = 1024, .processes = 128, .disk_mib = 512, .kind = {}};
  CHECK(!check_in_session({}, machine));
  find_session job;
  job.memory_mib = 1024;
  CHECK(!check_in_session(job, machine));
  job.memory_mib = 1025;
  CHECK(check_in_session(job, machine) == ec::too_large);
  CHECK(to_refusal(check_in_session(job, machine)).detail.find("memory_mib: 1025") == 0);
  job.memory_mib.reset();
  job.disk_mib = 16;
  CHECK(check_in_session(job, machine) == ec::unsupported);
  CHECK(to_refusal(check_in_session(job, machine)).detail.find("disk_mib: 16 is not") == 0);
}
