# bench/alloc measures the heap itself, without a file: it links the module, not the library.
add_executable(bench_alloc alloc.c alloc_work.c alloc_peers.c $<TARGET_OBJECTS:stead_alloc> $<TARGET_OBJECTS:stead_base>)
set_target_properties(bench_alloc PROPERTIES OUTPUT_NAME alloc)
target_link_libraries(bench_alloc PRIVATE stead_flags bench_support ${CMAKE_DL_LIBS})
if(BUILD_TESTING)
  add_test(NAME bench_smoke_alloc COMMAND bench_alloc --reps 1 --scale 50)
  set_tests_properties(bench_smoke_alloc PROPERTIES LABELS bench TIMEOUT 120)
endif()
