# The lock beside pthread's.  It measures a module by its own face (lock/rwlock.h), not the library by <stead.h>: what a
# store adds around a section is bench/tree's subject.
add_executable(bench_lock lock.c $<TARGET_OBJECTS:stead_lock> $<TARGET_OBJECTS:stead_base>)
set_target_properties(bench_lock PROPERTIES OUTPUT_NAME lock)
target_link_libraries(bench_lock PRIVATE stead_flags bench_support)
if(BUILD_TESTING)
  add_test(NAME bench_smoke_lock COMMAND bench_lock -r 1 -m 5 -t 4)
  set_tests_properties(bench_smoke_lock PROPERTIES LABELS bench TIMEOUT 900)
endif()
