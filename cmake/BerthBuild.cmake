# SPDX-License-Identifier: Apache-2.0
# What every target of the project shares: language level, warnings, hardening, options.
option(BERTH_TESTS "Build the tests" ON)
option(BERTH_BENCH "Build the benchmarks" ON)
option(BERTH_WERROR "Treat warnings as errors" OFF)
set(BERTH_SANITIZE "" CACHE STRING "Sanitizers for the server and its tests, for example address,undefined")
option(BERTH_FUZZ "Build the libFuzzer targets (needs clang)" OFF)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
# What the program needs beside it at run time: the guest, the templates.
set(BERTH_LIB_DIR ${CMAKE_BINARY_DIR}/lib/berth)
# What runs in virtual machines around that.
set(BERTH_INSIDE_DIR ${CMAKE_BINARY_DIR}/lib/berth-vm)
file(MAKE_DIRECTORY ${BERTH_LIB_DIR})

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

find_package(CAF REQUIRED)
find_package(msgpack REQUIRED CONFIG)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
# The static one, for programs inside virtual machines have no libraries.
find_library(SECCOMP_LIBRARY libseccomp.a REQUIRED)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(RE2 REQUIRED IMPORTED_TARGET re2)

add_library(berth_flags INTERFACE)
target_include_directories(berth_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(berth_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor -Wold-style-cast
    -Wno-missing-field-initializers> # messages are built by designated initializers
  # GCC 12 warns of text and maps of the standard library that it has inlined (its bug 105651).
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<CONFIG:Release>>:-Wno-restrict;-Wno-maybe-uninitialized>
  -fstack-protector-strong $<$<BOOL:${BERTH_WERROR}>:-Werror>
  $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2>)
target_compile_definitions(berth_flags INTERFACE _GLIBCXX_ASSERTIONS)
target_link_options(berth_flags INTERFACE -Wl,-z,relro,-z,now)

# Sanitizers cover all that runs in the server's own process; the static guest and the
# interpreters' templates run beside it and are built plainly.
add_library(berth_sanitize INTERFACE)
if(BERTH_SANITIZE)
  # CAF 0.17 binds a null reference in its spawn path, hence no null check.
  target_compile_options(berth_sanitize INTERFACE
    -fsanitize=${BERTH_SANITIZE} -fno-sanitize=null -fno-omit-frame-pointer)
  target_link_options(berth_sanitize INTERFACE -fsanitize=${BERTH_SANITIZE})
endif()

# What is fuzzed is instrumented, all of it, or the fuzzer would be blind.
if(BERTH_FUZZ)
  set(fuzz_flags -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize=null,function,vptr
    -fno-sanitize-recover=undefined)
  target_compile_options(berth_flags INTERFACE ${fuzz_flags} -fno-omit-frame-pointer)
  target_link_options(berth_flags INTERFACE ${fuzz_flags})
endif()

# berth_library(name SOURCES ... LINKS ...): one layer.
function(berth_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.hpp)
  add_library(${name} STATIC ${ARG_SOURCES})
  target_sources(${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${CMAKE_SOURCE_DIR} FILES ${headers})
  target_link_libraries(${name} PUBLIC berth_flags berth_sanitize ${ARG_LINKS})
  set_target_properties(${name} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
endfunction()
