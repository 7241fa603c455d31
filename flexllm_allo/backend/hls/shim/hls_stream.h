// SPDX-License-Identifier: Apache-2.0
// C simulation stand-in for Vitis' FIFO: unbounded, as Vitis' own is in C simulation.
#ifndef FLEXLLM_SHIM_HLS_STREAM_H
#define FLEXLLM_SHIM_HLS_STREAM_H

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <stdexcept>
#include <string>

namespace hls {

// Thrown in place of leaving the process where FLEXLLM_STREAM_THROWS is defined.
struct stream_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename T, int DEPTH = 0>
class stream {
  std::deque<T> queue_;
  std::string name_;
  std::size_t taken_ = 0;

  void check() const {
    if (!queue_.empty()) return;
    std::string message = "read from the empty stream " + (name_.empty() ? std::string("<unnamed>") : name_) +
                          " after " + std::to_string(taken_) + " elements: its producer has not run yet or " +
                          "writes too few elements";
#ifdef FLEXLLM_STREAM_THROWS
    throw stream_error(message);
#else
    std::fprintf(stderr, "ERROR: %s\n", message.c_str());
    std::exit(3);
#endif
  }

public:
  stream() = default;
  explicit stream(const char *name) : name_(name) {}
  stream(const stream &) = delete;
  stream &operator=(const stream &) = delete;

  void write(const T &value) { queue_.push_back(value); }
  T read() {
    check();
    T value = queue_.front();
    queue_.pop_front();
    taken_++;
    return value;
  }
  void read(T &value) { value = read(); }
  bool write_nb(const T &value) {
    write(value);
    return true;
  }
  bool read_nb(T &value) {
    if (queue_.empty()) return false;
    value = read();
    return true;
  }
  bool empty() const { return queue_.empty(); }
  bool full() const { return false; }
  std::size_t size() const { return queue_.size(); }
  void operator>>(T &value) { value = read(); }
  void operator<<(const T &value) { write(value); }
};

} // namespace hls

#endif
